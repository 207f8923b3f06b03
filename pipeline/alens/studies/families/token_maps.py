"""What heads do with a token that they look at, from the parameters alone: copy it, suppress it, or raise its partner.

In: a loaded model, tokens, and pairs of tokens. Out: for each family and head, on how large a share of the tokens the
head does it. A head maps a token s to logits m_s = e_s W_V W_O W_U, with the gains of both norms folded in and e_s the
token's embedding (`model.token_values`): what it writes when it looks at s. A copying head has s among the k tokens that
m_s raises most, a suppressing head among the k that it lowers most, and a head that has a relation has the partner t of s
among the k raised most. The control of a score is the mean share over all wrong partners, the other tokens of the
sample or the relation: what a random pairing would give, without drawing one.
Source: MAPS, arXiv 2412.11965, with k = 1 for copying and 10 else; controls are ours.
Shapes: S source tokens, K top tokens, H heads, E d_head, D d_model, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import torch

from alens.job.progress import Report, counted
from alens.machine.blocks import row_blocks
from alens.machine.products import fast_float32
from alens.machine.top_tokens import top_tokens
from alens.model.models import LoadedModel
from alens.model.token_values import TokenValues
from alens.studies.families.attention_scores import Scores
from alens.studies.families.relations import RelationTokens

COPYING, SUPPRESSION = "copying", "suppression"


def token_map_scores(
    model: LoadedModel,
    layers: Sequence[int],
    sample: Sequence[int],
    relations: Mapping[str, RelationTokens],
    *,
    top_k: int,
    report: Report,
) -> Scores:
    """The scores of all heads of `layers`: copying and suppression on the tokens of `sample`, and each relation.

    Raises `RequestError` where alens does not know how the model's heads take values.
    """
    groups = {COPYING: RelationTokens(sources=tuple(sample), targets=tuple(sample), left_out=0), **relations}
    sources = [token for group in groups.values() for token in group.sources]
    values = TokenValues(model, torch.tensor(sources))
    scores: Scores = {name: {} for name in (COPYING, SUPPRESSION, *relations)}
    for layer in counted(layers, report, "token maps", "layers"):
        values_HSE = values.layer(layer)
        for head, values_SE in enumerate(values_HSE):
            raised_SK, lowered_SK = _extremes(model, layer, head, values_SE, top_k)
            start = 0
            for name, group in groups.items():
                rows = slice(start, start + len(group.sources))
                start = rows.stop
                scores[name][layer, head] = _shares(raised_SK[rows], group.targets)
                if name == COPYING:
                    scores[SUPPRESSION][layer, head] = _shares(lowered_SK[rows], group.targets)
    return scores


def _extremes(
    model: LoadedModel, layer: int, head: int, values_SE: torch.Tensor, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(S, K) the tokens that a head raises most when it looks at each source, and (S, K) those it lowers most."""
    assert model.final_norm is not None  # else the caller leaves these families out
    with torch.inference_mode(), fast_float32():
        unembedded_EV = model.final_norm.linear(model.W_O_LHED[layer, head]) @ model.W_U_DV.float()
        raised, lowered = [], []
        for rows in row_blocks(len(values_SE), model.device):
            logits = values_SE[rows] @ unembedded_EV
            raised.append(top_tokens(logits, top_k)[1].cpu())
            lowered.append(top_tokens(-logits, top_k)[1].cpu())
    return torch.cat(raised), torch.cat(lowered)


def _shares(top_SK: torch.Tensor, targets: Sequence[int]) -> tuple[float, float]:
    """The share of rows whose own target is among the top tokens, and the share of all wrong targets that are."""
    own_S1 = torch.tensor(targets)[:, None]
    distinct = own_S1.unique()
    hits_S = (top_SK == own_S1).any(1)
    # each target is among the tokens of a row once at most
    wrong_S = torch.isin(top_SK, distinct).sum(1) - hits_S.long()
    control = wrong_S.double().mean() / max(1, len(distinct) - 1)
    return float(hits_S.double().mean()), float(control)
