"""Where heads look, on random tokens: four families, each beside its control.

In: a loaded model and `RepeatedTokens`. Out: for each family the mean attention of every head to the places that the
family is named by, and to places that a head would look at too which only goes by position.

| family | attention to | control |
| --- | --- | --- |
| previous-token | the token before, in sequences without repetition | the token two before |
| first-token | the first token of the sequence | the second one |
| duplicate-token | the earlier place of the same token | the same places, where the earlier token is another |
| induction | the token after that place | the same places, likewise |

Sources: previous-token and induction heads, arXiv 2209.11895; duplicate-token heads, arXiv 2211.00593. The controls are
ours. Shapes: B sequences, H heads, T = 1 + 2n tokens; places count from 0, the first token is at 0.
"""

from collections.abc import Sequence

import torch

from alens.job.progress import Report, counted
from alens.model.attention import see_attention
from alens.model.models import LoadedModel
from alens.studies.families.repeated_tokens import RepeatedTokens

FAMILIES = ("previous-token", "duplicate-token", "induction", "first-token")

Scores = dict[str, dict[tuple[int, int], tuple[float, float]]]
"""By family, and by layer and head: score and control."""


def attention_scores(
    model: LoadedModel,
    tokens: RepeatedTokens,
    layers: Sequence[int],
    *,
    sequences: int,
    batch_size: int,
    report: Report,
) -> Scores:
    """The scores of all heads of `layers`. Raises `RequestError` where the model does not show its attention."""
    n = tokens.length
    sums: dict[tuple[int, bool], torch.Tensor] = {}
    batches = [range(start, min(start + batch_size, sequences)) for start in range(0, sequences, batch_size)]
    for numbers in counted(batches, report, "attention", "batches"):
        for is_repeated, tokens_BT in zip((True, False), tokens.batch(numbers), strict=True):

            def see(layer: int, pattern_BHTT: torch.Tensor, is_repeated: bool = is_repeated) -> None:
                looks = torch.stack(_looks(pattern_BHTT, n, is_repeated)) * len(pattern_BHTT)
                key = (layer, is_repeated)
                sums[key] = sums[key] + looks if key in sums else looks

            see_attention(model, tokens_BT, layers, see)
    scores: Scores = {family: {} for family in FAMILIES}
    for layer in layers:
        duplicate_H, induction_H = sums[layer, True] / sequences
        looks_CH = sums[layer, False] / sequences
        previous_H, before_H, first_H, second_H, places_H, after_H = looks_CH
        pairs = (
            (previous_H, before_H),
            (duplicate_H, places_H),
            (induction_H, after_H),
            (first_H, second_H),
        )
        for family, (score_H, control_H) in zip(FAMILIES, pairs, strict=True):
            for head, pair in enumerate(zip(score_H.tolist(), control_H.tolist(), strict=True)):
                scores[family][layer, head] = pair
    return scores


def _looks(pattern_BHTT: torch.Tensor, n: int, is_repeated: bool) -> list[torch.Tensor]:
    """(H,) float64 means over sequences and places of one kind of sequence.

    Repeated: attention to the same token, and to the one after it. Else: to the token before and two before, to the first
    and the second token, and to the two places of a repetition, without one.
    """
    again = _back(pattern_BHTT, n, n + 1), _back(pattern_BHTT, n - 1, n + 1)
    if is_repeated:
        return list(again)
    return [
        _back(pattern_BHTT, 1, 3),  # from place 3 on, two before is not the first token
        _back(pattern_BHTT, 2, 3),
        *(pattern_BHTT[:, :, 2:, place].double().mean((0, 2)) for place in (0, 1)),
        *again,
    ]


def _back(pattern_BHTT: torch.Tensor, distance: int, start: int) -> torch.Tensor:
    """(H,) the mean attention to the place `distance` before, from the places `start` and later."""
    diagonal_BHT = pattern_BHTT.diagonal(-distance, dim1=-2, dim2=-1)
    return diagonal_BHT[:, :, start - distance :].double().mean((0, 2))
