"""Permutation tests of many heads, against scipy, against numbers worked out by hand, and on noise."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from alens.errors import RequestError
from alens.statistics import permutation
from alens.statistics import relabelling as chance
from alens.statistics.corrections import CORRECTIONS
from alens.statistics.permutation import HeadTests, one_group, two_groups

NONE = {"correction": "none", "permutations": 99_999, "seed": 0}


def scores(prompts: int, heads: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (prompts, heads))


def welch(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    return (a.mean(axis) - b.mean(axis)) / np.sqrt(
        a.var(axis, ddof=1) / a.shape[axis] + b.var(axis, ddof=1) / b.shape[axis]
    )


@pytest.mark.parametrize("sizes", [(4, 4), (3, 6)])
@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_relabelling_is_scipys_test_of_welchs_t(sizes: tuple[int, int], alternative: str) -> None:
    ours, theirs = scores(sizes[0], 5, 1, 0.8), scores(sizes[1], 5, 2)
    tests = two_groups(ours, theirs, alternative=alternative, **NONE)
    assert tests.exact and tests.relabellings == math.comb(sum(sizes), sizes[0])
    assert tests.effect_F == pytest.approx(ours.mean(0) - theirs.mean(0))
    t_RF, _ = chance.relabelled(ours, theirs, permutations=99_999, seed=0)
    for head in range(5):
        # scipy doubles the smaller tail; ours counts both
        def size(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
            t = welch(a, b, axis)
            return np.abs(t) if alternative == "two-sided" else t

        expected = stats.permutation_test(
            (ours[:, head], theirs[:, head]), size, n_resamples=np.inf, alternative="greater", vectorized=True
        )
        t_R = np.abs(t_RF[:, head]) if alternative == "two-sided" else t_RF[:, head]
        assert (t_R >= t_R[0] - 1e-9).mean() == pytest.approx(expected.pvalue)
        assert tests.p_F[head] >= expected.pvalue - 1e-12


def test_flipped_signs_are_a_plain_loop_over_all_of_them() -> None:
    ours, theirs = scores(3, 2, 20, 0.8), scores(4, 2, 21)
    t_RF = chance.flipped(ours, theirs, permutations=128, seed=0)
    assert t_RF[0] == pytest.approx(welch(ours, theirs, 0))
    by_hand = []
    for signs in itertools.product((1.0, -1.0), repeat=7):
        of_ours, of_theirs = np.array(signs[:3])[:, None], np.array(signs[3:])[:, None]
        by_hand.append(welch(of_ours * (ours - ours.mean(0)), of_theirs * (theirs - theirs.mean(0)), 0))
    assert t_RF[1:] == pytest.approx(np.array(by_hand), abs=1e-6)


def test_drawn_flips_come_near_all_of_them() -> None:
    ours, theirs = scores(6, 3, 22, 0.5), scores(7, 3, 23)
    every, drawn, other = (
        (np.abs(t_RF) >= np.abs(t_RF[0])).mean(0)
        for t_RF in (
            chance.flipped(ours, theirs, permutations=2**13, seed=0),
            chance.flipped(ours, theirs, permutations=4000, seed=0),
            chance.flipped(ours, theirs, permutations=4000, seed=1),
        )
    )
    assert drawn == pytest.approx(every, abs=0.03) and (drawn != other).any()


def test_a_head_has_the_larger_p_of_relabelling_and_flips() -> None:
    """The few prompts spread four times as much: shuffled labels do not show that, flips do."""
    ours, theirs = 4 * scores(6, 1, 30), scores(30, 1, 31)
    ours += 5.5 - ours.mean()
    ps = []
    for t_RF in (
        chance.relabelled(ours, theirs, permutations=4999, seed=0)[0],
        chance.flipped(ours, theirs, permutations=4999, seed=0),
    ):
        ps.append(float((np.abs(t_RF) >= np.abs(t_RF[0])).mean()))
    tests = two_groups(ours, theirs, correction="max-t", permutations=4999, seed=0)
    assert ps[0] < ps[1] / 2 and tests.p_F[0] == tests.p_corrected_F[0] == pytest.approx(ps[1])
    assert tests.more_draws == 4999
    alike = two_groups(*(scores(4, 1, seed) for seed in (26, 27)), correction="none", permutations=99, seed=0)
    assert alike.more_draws == 99 and alike.relabellings == 70


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_one_group_is_scipys_test_of_pairs(alternative: str) -> None:
    differences = scores(8, 4, 3, 0.5)
    tests = one_group(differences, alternative=alternative, **NONE)
    assert tests.exact and tests.relabellings == 2**8
    for head in range(4):

        def size(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
            mean = (a - b).mean(axis)
            return np.abs(mean) if alternative == "two-sided" else mean

        expected = stats.permutation_test(
            (differences[:, head], np.zeros(8)),
            size,
            permutation_type="samples",
            n_resamples=np.inf,
            alternative="greater",
            vectorized=True,
        )
        assert tests.p_F[head] == pytest.approx(expected.pvalue)


def test_redrawn_prompts_are_a_plain_loop() -> None:
    differences = scores(5, 2, 28, 0.5)
    t_RF = chance.redrawn(differences, permutations=20, seed=3)
    assert t_RF[0] == pytest.approx(stats.ttest_1samp(differences, 0.0).statistic)
    counts_RP = np.random.default_rng([3, chance.REDRAWS]).multinomial(5, np.full(5, 0.2), size=20)
    for counts_P, t_F in zip(counts_RP, t_RF[1:], strict=True):
        drawn = np.repeat(differences - differences.mean(0), counts_P, axis=0)
        if counts_P.max() < 5:
            assert t_F == pytest.approx(stats.ttest_1samp(drawn, 0.0).statistic, abs=1e-6)


def test_skewed_differences_have_the_larger_p_of_flips_and_redraws() -> None:
    differences = 3.0 - np.random.default_rng(4).chisquare(3, (12, 1)) + 1.0
    asked = {"correction": "max-t", "alternative": "greater", "permutations": 999, "seed": 0}
    plain, skewed = one_group(differences, **asked), one_group(differences, skewed=True, **asked)
    t_R = chance.redrawn(differences, permutations=999, seed=0)[:, 0]
    assert skewed.p_F[0] == pytest.approx(max(plain.p_F[0], (t_R >= t_R[0]).mean()))
    assert (plain.more_draws, skewed.more_draws) == (0, 999)


def test_drawn_relabellings_come_near_all_of_them() -> None:
    ours, theirs = scores(7, 6, 4, 0.7), scores(7, 6, 5)
    every = two_groups(ours, theirs, **NONE)
    drawn = two_groups(ours, theirs, **{**NONE, "permutations": 3000})
    assert every.exact and not drawn.exact and drawn.relabellings == 3001
    assert drawn.p_F == pytest.approx(every.p_F, abs=0.03)
    again = two_groups(ours, theirs, **{**NONE, "permutations": 3000})
    assert (again.p_F == drawn.p_F).all()
    other = two_groups(ours, theirs, **{**NONE, "permutations": 3000, "seed": 1})
    assert (other.p_F != drawn.p_F).any()


def test_no_p_is_zero() -> None:
    tests = two_groups(scores(30, 2, 6, 50.0), scores(30, 2, 7), **{**NONE, "permutations": 199})
    assert tests.p_F == pytest.approx([1 / 200, 1 / 200])
    pairs = one_group(scores(30, 2, 6, 50.0), **{**NONE, "permutations": 199})
    assert pairs.p_F == pytest.approx([1 / 200, 1 / 200])


@pytest.mark.parametrize(
    ("sizes", "paired", "alternative"),
    [
        ((4, 4), False, "two-sided"),
        ((4, 4), False, "greater"),
        ((3, 5), False, "two-sided"),
        ((6, None), True, "two-sided"),
        ((6, None), True, "greater"),
        ((40, 40), False, "two-sided"),
    ],
)
def test_the_smallest_p_is_what_groups_far_apart_have(
    sizes: tuple[int, int | None], paired: bool, alternative: str
) -> None:
    asked = {"alternative": alternative, "permutations": 499}
    ours = scores(sizes[0], 1, 8, 1000.0)
    if sizes[1] is None:
        tests = one_group(ours, correction="none", seed=0, **asked)
    else:
        tests = two_groups(ours, scores(sizes[1], 1, 9), correction="none", seed=0, **asked)
    assert tests.p_F[0] == pytest.approx(permutation.smallest_p(*sizes, paired=paired, **asked))


def max_t(ours: np.ndarray, theirs: np.ndarray) -> HeadTests:
    return two_groups(ours, theirs, correction="max-t", permutations=9999, seed=0)


def test_max_t_of_one_head_is_its_p() -> None:
    tests = max_t(scores(6, 1, 10, 0.8), scores(6, 1, 11))
    assert tests.p_corrected_F == pytest.approx(tests.p_F)


def test_max_t_knows_that_copies_of_a_head_are_no_new_looks() -> None:
    ours, theirs = scores(6, 1, 10, 0.8), scores(6, 1, 11)
    alone, copied = max_t(ours, theirs), max_t(np.tile(ours, 50), np.tile(theirs, 50))
    assert copied.p_corrected_F == pytest.approx(np.repeat(alone.p_F, 50))


def test_max_t_follows_the_order_of_the_heads_statistics() -> None:
    ours, theirs = scores(8, 20, 12), scores(8, 20, 13)
    ours[:, :5] += 1.5
    tests = max_t(ours, theirs)
    assert (tests.p_corrected_F >= tests.p_F).all() and (tests.p_corrected_F > 3 * tests.p_F)[:5].all()
    order = np.argsort(-np.abs(welch(ours, theirs, 0)))
    assert (np.diff(tests.p_corrected_F[order]) >= 0).all()


def test_max_t_steps_down() -> None:
    """Beside a head that is surely raised, the others are tested as if it were not there."""
    ours, theirs = scores(6, 4, 14), scores(6, 4, 15)
    ours[:, 0] += 100.0
    tests, without = max_t(ours, theirs), max_t(ours[:, 1:], theirs[:, 1:])
    assert tests.p_corrected_F[1:] == pytest.approx(without.p_corrected_F)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_scores_that_are_all_alike_show_nothing(correction: str) -> None:
    same = np.full((4, 3), -2.5)
    asked = {"correction": correction, "permutations": 999, "seed": 0}
    assert two_groups(same, same[:3], **asked).p_corrected_F == pytest.approx(np.ones(3))
    assert one_group(0 * same, **asked).p_corrected_F == pytest.approx(np.ones(3))


def test_groups_without_spread_can_still_be_told_apart() -> None:
    tests = two_groups(np.full((4, 2), 1.0), np.full((4, 2), 0.0), **NONE)
    assert tests.p_F == pytest.approx([2 / 70, 2 / 70])


def test_the_scale_of_a_head_does_not_matter() -> None:
    ours, theirs = scores(5, 6, 16, 0.5), scores(5, 6, 17)
    scale = 10.0 ** np.arange(-3, 3)
    plain, scaled = max_t(ours, theirs), max_t(ours * scale + 7, theirs * scale + 7)
    assert scaled.p_corrected_F == pytest.approx(plain.p_corrected_F)


@pytest.mark.parametrize("correction", ["max-t", "holm", "bh"])
def test_noise_is_rarely_called_significant(correction: str) -> None:
    false, alone = 0, 0
    for seed in range(100):
        both = scores(16, 12, 100 + seed) + scores(16, 1, 300 + seed)  # heads have a part in common
        asked = {"permutations": 199, "seed": seed}
        false += bool(
            two_groups(both[:8], both[8:], correction=correction, **asked).p_corrected_F.min() <= 0.05
        )
        alone += bool(two_groups(both[:8], both[8:], correction="none", **asked).p_F.min() <= 0.05)
    assert false <= 10  # 5 expected at most; binomial: 11 or more has probability 0.01
    assert alone >= 15  # uncorrected, many more


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"correction": "tukey"}, "correction 'tukey' is unknown: take one of max-t, "),
        ({"alternative": "less"}, "alternative 'less' is unknown: take two-sided or greater"),
    ],
)
def test_unknown_names_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        two_groups(scores(4, 1, 0), scores(4, 1, 1), **{**NONE, **given})
    with pytest.raises(RequestError, match=message):
        one_group(scores(4, 1, 0), **{**NONE, **given})


def test_one_prompt_is_too_few() -> None:
    with pytest.raises(RequestError, match="a group has 1 prompt: a test needs 2 or more"):
        two_groups(scores(4, 1, 0), scores(1, 1, 1), **NONE)
