"""Refits of the contrast on drawn prompts, against fits that are made one by one, and what their intervals hold."""

import numpy as np
import pytest
import torch
from scipy import special

from alens.statistics.area import comparisons
from alens.studies.comparison.prompt_scores import folds
from alens.studies.comparison.refits import Refits

CLEAN, SUSPECT = 7, 9
FLAGS = np.repeat([False, True], [CLEAN, SUSPECT])
NAMES = [str(n) for n in range(CLEAN + SUSPECT)]


def readings(number: int, seed: int, shift: float = 0.0, topic: float = 1.0) -> torch.Tensor:
    """(2 number, 20) readings, of which the second half has one logit higher by `shift`; all vary along two directions."""
    random = torch.Generator().manual_seed(seed)
    ways_2V = torch.randn(2, 20, generator=torch.Generator().manual_seed(99))
    logits_NV = topic * torch.randn(2 * number, 2, generator=random) @ ways_2V
    logits_NV += 0.3 * torch.randn(2 * number, 20, generator=random)
    logits_NV[number:, 4] += shift
    return logits_NV.softmax(-1)


def test_scores_are_those_of_fits_on_the_drawn_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alens.studies.comparison.refits.tile_size", lambda device: (7, 6))
    readings_NV = readings(8, 0, shift=1.0, topic=8.0)  # means from 1e-5
    refits = Refits(NAMES, FLAGS, paired=False, seed=3, number=10)
    contrast_BN = refits.scores(readings_NV)
    assert contrast_BN.shape == (10 + 50, 16)
    drawn_BN = np.hstack([weights for _, weights in refits._weights])
    draws_BN, fit_RN = drawn_BN[:10], drawn_BN[10:]
    assert (draws_BN[:, :CLEAN].sum(1) == CLEAN).all() and (draws_BN[:, CLEAN:].sum(1) == SUSPECT).all()
    assert np.array_equal(refits.undrawn_BN, draws_BN == 0)
    assert np.unique(fit_RN).tolist() == [0, 1] and ((1 - fit_RN).sum(0) == 10).all()
    assert len(np.unique(fit_RN, axis=0)) > 45  # folds are drawn anew
    for contrast_N, drawn in zip(contrast_BN, drawn_BN, strict=True):
        chosen = np.repeat(np.arange(16), drawn.astype(int))
        clean_V = readings_NV[chosen[chosen < CLEAN]].mean(0)
        suspect_V = readings_NV[chosen[chosen >= CLEAN]].mean(0)
        assert contrast_N == pytest.approx(
            (readings_NV @ (suspect_V.log() - clean_V.log())).numpy(), abs=1e-5
        )


def test_what_was_drawn_is_not_judged_nor_its_twin_or_copy() -> None:
    pairs = [str(n) for n in range(8)] * 2
    copied = [str(n) for n in range(8)] + ["3", *[str(n) for n in range(9, 16)]]
    flags = np.repeat([False, True], 8)
    for groups, paired, twin in ((pairs, True, 0), (copied, False, 3)):
        refits = Refits(groups, flags, paired=paired, seed=0)
        judged_BN = refits._judged_BN
        assert (
            refits.scores(torch.ones(16, 3)).shape == (450, 16)
            and judged_BN.any(0).all()
            and not (judged_BN & ~refits.undrawn_BN).any()
        )
        assert not (judged_BN[:, 8] & ~refits.undrawn_BN[:, twin]).any()
    refits = Refits(pairs, flags, paired=True, seed=0)
    assert np.array_equal(refits.undrawn_BN[:, :8], refits.undrawn_BN[:, 8:])


def test_a_prior_is_added_to_sums() -> None:
    refits = Refits(NAMES, FLAGS, paired=False, seed=0, number=5)
    contrast_BN = refits.scores(torch.eye(16), prior=1.0)
    contrast_BN = contrast_BN[:5]
    clean_BC, suspect_BS = (weights[:5] for _, weights in refits._weights)
    undrawn = np.log(1 / SUSPECT) - np.log((clean_BC + 1) / CLEAN)
    assert contrast_BN[:, :CLEAN] == pytest.approx(undrawn, abs=1e-5)
    assert contrast_BN[:, CLEAN:] == pytest.approx(
        np.log((suspect_BS + 1) / SUSPECT) - np.log(1 / CLEAN), abs=1e-5
    )


@pytest.mark.parametrize("paired", [False, True])
def test_the_area_is_of_folds_and_its_interval_of_draws(paired: bool) -> None:
    names, flags = [str(n % 8 if paired else n) for n in range(16)], np.repeat([False, True], 8)
    refits = Refits(names, flags, paired=paired, seed=2, number=50, num_folds=3)
    scores_BN = refits.scores(readings(8, 0, shift=1.0))
    splits = [split for repeat in range(10) for split in folds(names, flags, 3, 2, repeat)]
    judged_RN = np.array([np.isin(np.arange(16), split.judge) for split in splits])
    area = comparisons(scores_BN[50:], judged_RN, flags, paired=paired).area
    assert refits.held_out(scores_BN).area == pytest.approx(area)
    drawn = comparisons(scores_BN[:50], refits.undrawn_BN, flags, paired=paired)
    interval = refits.interval(scores_BN)
    assert interval == pytest.approx(drawn.interval(refits.undrawn_BN, around=area))
    assert special.logit(interval).mean() == pytest.approx(special.logit(area))


def test_clean_and_suspect_prompts_are_drawn_for_themselves() -> None:
    flags = np.repeat([False, True], 8)
    undrawn_BN = Refits(NAMES, flags, paired=False, seed=0, number=20).undrawn_BN
    assert not np.array_equal(undrawn_BN[:, :8], undrawn_BN[:, 8:])


def test_draws_depend_on_the_seed_alone() -> None:
    one, same, other = (Refits(NAMES, FLAGS, paired=False, seed=seed).undrawn_BN for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    for kind in (FLAGS, ~FLAGS):
        assert not np.array_equal(one[:, kind], other[:, kind])


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_holds_chance_where_nothing_differs(paired: bool) -> None:
    """An interval over judged prompts alone would hold it in about four of five samples."""
    held, judged_alone = [], []
    names = [str(n % 15 if paired else n) for n in range(30)]
    flags = np.repeat([False, True], 15)
    for seed in range(120):
        refits = Refits(names, flags, paired=paired, seed=seed, number=100)
        scores_BN = refits.scores(readings(15, seed))
        for which, (low, high) in (
            (held, refits.interval(scores_BN)),
            (judged_alone, refits.held_out(scores_BN).interval()),
        ):
            which.append(low <= 0.5 <= high)
    assert np.mean(held) > 0.9 and np.mean(judged_alone) < np.mean(held)


def test_the_interval_holds_what_other_prompts_give() -> None:
    flags, held, areas = np.repeat([False, True], 15), [], []
    fresh_NV = readings(200, 10_000, shift=1.5)
    names = [str(n) for n in range(30)]
    for seed in range(120):
        given_NV = readings(15, seed, shift=1.5)
        refits = Refits(names, flags, paired=False, seed=seed, number=100)
        held.append(refits.interval(refits.scores(given_NV)))
        scores = fresh_NV @ (given_NV[15:].mean(0).log() - given_NV[:15].mean(0).log())
        areas.append(float((scores[200:, None] > scores[:200]).double().mean()))
    assert 0.6 < np.mean(areas) < 0.95
    assert np.mean([low <= np.mean(areas) <= high for low, high in held]) > 0.92
