"""Lists, KL and entropy of distributions made by hand."""

import math

import pytest
import torch

from alens.reading.ranking import Ranking, best, term_log_probs
from alens.reading.settings import LIFT, OWN_LIFT, PROBABILITY, Z_SCORE
from alens.reading.terms import Term

PROBS_V = [0.5, 0.3, 0.1, 0.06, 0.04]
MEAN_V = [0.8, 0.1, 0.05, 0.03, 0.02]


def how(rank: str, top: int, floor: float = 0.05) -> Ranking:
    return Ranking(rank=rank, top=top, min_probability=floor)


def logs(*probs: float) -> torch.Tensor:
    return torch.tensor(probs, dtype=torch.float64).log().float()


def ids(ranking: Ranking, mean: list[float] | None = MEAN_V) -> list[int]:
    best_ids, values = best(logs(*PROBS_V), None if mean is None else logs(*mean), ranking)
    return [
        token for token, value in zip(best_ids.tolist(), values.tolist(), strict=True) if value > -math.inf
    ]


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        (how(PROBABILITY, 3), [0, 1, 2]),
        (how(LIFT, 2), [1, 2]),  # lift 3, 2, 2; 4 is below the floor
        (how(LIFT, 4), [1, 2, 3, 0]),
        (how(LIFT, 2, 0.4), [1, 0]),  # one token reaches the floor: the two most probable count
        (how(LIFT, 5, 0.4), [1, 2, 3, 4, 0]),
    ],
)
def test_what_comes_first(ranking: Ranking, expected: list[int]) -> None:
    best_ids = ids(ranking)
    lift = [round(PROBS_V[i] / MEAN_V[i], 3) for i in best_ids]
    assert sorted(best_ids) == sorted(expected)
    assert ranking.rank == PROBABILITY or lift == sorted(lift, reverse=True)


def test_own_lift_and_z_score_are_beside_the_lenss_own_mean() -> None:
    own = logs(0.2, 0.3, 0.3, 0.1, 0.1), torch.tensor([3.0, 0.1, 1.0, 1.0, 1.0])
    best_ids, _ = best(logs(*PROBS_V), logs(*MEAN_V), how(OWN_LIFT, 3, 0.03), own)
    assert best_ids.tolist() == [0, 1, 3]  # 2.5, 1, 0.6, of 0.4 and 0.33
    above = logs(*PROBS_V) - own[0]
    above = (above - (above * torch.tensor(MEAN_V)).sum()) / own[1]
    best_ids, values = best(logs(*PROBS_V), logs(*MEAN_V), how(Z_SCORE, 5, 0.03), own)
    assert best_ids.tolist() == above.argsort(descending=True).tolist()
    assert best_ids[0] != 1 and values.exp().tolist() == pytest.approx([PROBS_V[i] for i in best_ids])
    assert ids(how(OWN_LIFT, 2)) == ids(
        how(LIFT, 2)
    )  # of the model and the unembedding nothing of the kind is known


def test_a_token_that_the_mean_output_never_saw_has_no_lift() -> None:
    assert 1 not in ids(how(LIFT, 4), [0.9, 1e-38, 0.05, 0.03, 0.02])


def test_lists_of_many_distributions_are_made_at_once() -> None:
    log_probs_HTV = torch.stack([logs(*PROBS_V), logs(*reversed(PROBS_V))])[:, None].expand(2, 3, 5)
    best_ids, values = best(log_probs_HTV, logs(*MEAN_V), how(LIFT, 2))
    assert best_ids.shape == values.shape == (2, 3, 2)
    assert best_ids[1, 0].tolist() == [4, 3]
    assert values[1, 2].exp().tolist() == pytest.approx([0.5, 0.3])


def test_a_term_of_two_tokens_has_both_their_mass() -> None:
    terms = [Term(text="a", ids=(0, 2)), Term(text="b", ids=(4,))]
    assert term_log_probs(logs(*PROBS_V), terms).exp().tolist() == pytest.approx([0.6, 0.04])
