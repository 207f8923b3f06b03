"""What detectors put together: readings of a kind are summed, areas are of folds, and intervals of refits."""

import numpy as np
import torch

from alens.statistics.area import comparisons
from alens.studies.comparison.detectors import Detectors
from alens.studies.comparison.prompt_scores import folds, score
from alens.studies.comparison.refits import Refits

FLAGS = np.repeat([False, True], 12)
PAIRS = [str(n % 12) for n in range(24)]
SPLITS = folds(PAIRS, FLAGS, 4, 0)
REFITS = Refits(PAIRS, FLAGS, paired=True, seed=0, number=40, num_folds=4)


def readings(seed: int, shift: float = 0.5) -> torch.Tensor:
    """(24, 8) readings: twins have a part in common, and suspect prompts one logit higher by `shift`."""
    random = torch.Generator().manual_seed(seed)
    logits_NV = torch.randn(12, 8, generator=random).repeat(2, 1) + torch.randn(24, 8, generator=random)
    logits_NV[12:, 3] += shift
    return logits_NV.softmax(-1)


def detectors() -> Detectors:
    return Detectors(SPLITS, FLAGS, "4-fold cross-validation", paired=True, refits=REFITS)


def test_readings_of_a_kind_make_one_contrast() -> None:
    parts, made = [readings(0), readings(1)], detectors()
    for number, part in enumerate(parts):
        made.add("lens", part, (0, number))
    contrast = made.separations("lens")["contrast"]
    alone = [REFITS.scores(part) for part in parts]
    together_BN = alone[0] + alone[1]
    assert contrast.auc == REFITS.held_out(together_BN).area != REFITS.held_out(alone[1]).area
    assert (
        (contrast.low, contrast.high)
        == REFITS.interval(together_BN)
        != REFITS.held_out(together_BN).interval()
    )
    assert contrast.interval_over == "judged prompts and refits"


def test_twins_are_not_compared_by_the_anomaly_either() -> None:
    reading_NV, made = readings(2), detectors()
    made.add("lens", reading_NV)
    scores_BN, judged_BN = np.zeros((4, 24)), np.zeros((4, 24), bool)
    anomaly = score(reading_NV, FLAGS, SPLITS).anomaly
    for scores_N, judged_N, split, judged_scores in zip(scores_BN, judged_BN, SPLITS, anomaly, strict=True):
        scores_N[split.judge], judged_N[split.judge] = judged_scores, True
    strangers, all_of_them = (comparisons(scores_BN, judged_BN, FLAGS, paired=p).area for p in (True, False))
    assert made.separations("lens")["anomaly"].auc == strangers != all_of_them


def test_a_last_token_counts_one_more_than_it_was_seen() -> None:
    made = detectors()
    for kind in ("lens", "unembedding", "model"):
        made.add(kind, readings(3))
    last_N = np.random.default_rng(2).integers(0, 9, 24)
    _, token_N = np.unique(last_N, return_inverse=True)
    seen_NV = torch.eye(len(set(last_N.tolist())))[token_N]
    with_one, without = (REFITS.held_out(REFITS.scores(seen_NV, prior=prior)).area for prior in (1.0, 0.0))
    assert made.judge([[0, token] for token in last_N.tolist()]).last_token.auc == with_one != without
