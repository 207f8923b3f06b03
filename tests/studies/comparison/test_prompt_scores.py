"""The detector's scores: what they are, and that nothing judged was fitted on."""

import numpy as np
import pytest
import torch

from alens.statistics import divergences
from alens.studies.comparison import prompt_scores
from alens.studies.comparison.prompt_scores import Split

CLEAN, SUSPECT = 12, 10
LABELS = np.repeat([False, True], [CLEAN, SUSPECT])
SPLIT = Split(fit=np.r_[0:9, 12:20], judge=np.r_[9:12, 20:22])


def readings(shift: float, seed: int = 0) -> torch.Tensor:
    """(N, 30) readings: suspect prompts have one logit higher by `shift`."""
    random = torch.Generator().manual_seed(seed)
    logits_NV = torch.randn(CLEAN + SUSPECT, 30, generator=random)
    logits_NV[CLEAN:, 4] += shift
    return logits_NV.softmax(-1)


def test_every_prompt_is_judged_once_by_a_fit_without_it() -> None:
    splits = prompt_scores.folds([str(n) for n in range(CLEAN + SUSPECT)], LABELS, 5, seed=0)
    assert sorted(np.concatenate([split.judge for split in splits])) == list(range(CLEAN + SUSPECT))
    for split in splits:
        assert not set(split.fit) & set(split.judge)
        assert len(split.fit) + len(split.judge) == CLEAN + SUSPECT
        assert 2 <= LABELS[split.judge].sum() <= 2 and 2 <= (~LABELS[split.judge]).sum() <= 3


def test_folds_depend_on_the_seed_alone() -> None:
    groups = [str(n) for n in range(CLEAN + SUSPECT)]
    first_folds = [prompt_scores.folds(groups, LABELS, 5, seed)[0].judge.tolist() for seed in (0, 0, 1)]
    assert first_folds[0] == first_folds[1] != first_folds[2]


def test_prompts_of_a_group_are_in_one_fold() -> None:
    labels = np.repeat([False, True], [10, 10])
    groups = [str(n) for n in range(10)] * 2
    splits = prompt_scores.folds(groups, labels, 5, seed=0)
    assert len(splits) == 5
    for split in splits:
        assert len(split.judge) == 4
        assert not {groups[n] for n in split.fit} & {groups[n] for n in split.judge}


def test_the_contrast_is_a_difference_of_divergences() -> None:
    readings_NV = readings(2.0).double()
    clean_V, suspect_V = readings_NV[0:9].mean(0), readings_NV[12:20].mean(0)
    expected = [
        float(divergences.kl(p_V, clean_V) - divergences.kl(p_V, suspect_V))
        for p_V in readings_NV[SPLIT.judge]
    ]
    (contrast_N,) = prompt_scores.score(readings_NV, LABELS, [SPLIT]).contrast
    assert np.diff(contrast_N) == pytest.approx(np.diff(expected), rel=1e-6)


def test_zero_lies_halfway_between_prompts_that_were_left_out() -> None:
    readings_NV = readings(2.0).double()

    def contrast(number: int) -> float:
        others = [n for n in SPLIT.fit if n != number]
        clean_V = readings_NV[[n for n in others if n < CLEAN]].mean(0)
        suspect_V = readings_NV[[n for n in others if n >= CLEAN]].mean(0)
        return float(readings_NV[number] @ (suspect_V.log() - clean_V.log()))

    halfway = np.mean(
        [np.mean([contrast(n) for n in range(9)]), np.mean([contrast(n) for n in range(12, 20)])]
    )
    clean_V, suspect_V = readings_NV[0:9].mean(0), readings_NV[12:20].mean(0)
    raw = (readings_NV[SPLIT.judge] @ (suspect_V.log() - clean_V.log())).numpy()
    (contrast_N,) = prompt_scores.score(readings_NV, LABELS, [SPLIT]).contrast
    assert contrast_N == pytest.approx(raw - halfway, abs=1e-6)


def test_the_anomaly_knows_no_suspect_prompt() -> None:
    one, other = readings(2.0), readings(2.0)
    other[12:20] = readings(5.0, seed=9)[12:20]
    first, second = (prompt_scores.score(given, LABELS, [SPLIT]) for given in (one, other))
    assert np.array_equal(first.anomaly[0], second.anomaly[0])
    assert not np.allclose(first.contrast[0], second.contrast[0])


def test_the_anomaly_is_standardised_by_clean_prompts_left_out() -> None:
    readings_NV = readings(2.0).double()
    apart = [
        float(
            divergences.jensen_shannon(readings_NV[[m for m in range(9) if m != n]].mean(0), readings_NV[n])
        )
        for n in range(9)
    ]
    judged = [
        float(divergences.jensen_shannon(readings_NV[0:9].mean(0), readings_NV[n])) for n in SPLIT.judge
    ]
    scores = prompt_scores.score(readings_NV, LABELS, [SPLIT])
    assert scores.anomaly[0] == pytest.approx((judged - np.mean(apart)) / np.std(apart))
    assert scores.fitted_anomaly[0] == pytest.approx((apart - np.mean(apart)) / np.std(apart))


def test_what_is_judged_changes_no_other_score() -> None:
    one, other = readings(2.0), readings(2.0)
    other[21] = readings(0.0, seed=5)[0]
    first, second = (prompt_scores.score(given, LABELS, [SPLIT]) for given in (one, other))
    for before, after in ((first.contrast, second.contrast), (first.anomaly, second.anomaly)):
        assert np.array_equal(before[0][:-1], after[0][:-1]) and before[0][-1] != after[0][-1]


def test_suspect_prompts_score_higher_and_are_told() -> None:
    scores = prompt_scores.score(readings(9.0), LABELS, [SPLIT])
    assert (scores.contrast[0] > 0).tolist() == LABELS[SPLIT.judge].tolist()
    assert scores.anomaly_alarms()[0][3:].all()


def test_heads_are_added_in_the_contrast_and_averaged_in_the_anomaly() -> None:
    one, other = (prompt_scores.score(readings(2.0, seed), LABELS, [SPLIT]) for seed in (0, 1))
    both = (one + other).averaged(2)
    assert both.contrast[0] == pytest.approx(one.contrast[0] + other.contrast[0])
    assert both.anomaly[0] == pytest.approx((one.anomaly[0] + other.anomaly[0]) / 2)


def test_a_probability_of_0_is_no_end() -> None:
    readings_NV = readings(2.0)
    readings_NV[:, 7] = 0.0
    readings_NV[20, 7] = 0.5
    scores = prompt_scores.score(readings_NV, LABELS, [SPLIT])
    assert np.isfinite(scores.contrast[0]).all() and np.isfinite(scores.anomaly[0]).all()
