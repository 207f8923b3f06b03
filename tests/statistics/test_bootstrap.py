import numpy as np
import pytest
from scipy import stats

from alens.statistics import bootstrap
from alens.statistics.bootstrap import counts, interval, mean_intervals, resampled_means


def groups(num: int, figures: int = 2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(num)
    rows_G = random.integers(1, 9, num).astype(float)
    return random.normal(1.0, 0.5, (num, figures)) * rows_G[:, None], rows_G


def test_means_are_those_of_a_plain_loop_over_drawn_groups() -> None:
    sums_GF, rows_G = groups(7)
    counts_RG = counts(0, 5, 7, seed=3).astype(int)
    for mean_F, count_G in zip(resampled_means(sums_GF, rows_G, seed=3, resamples=5), counts_RG, strict=True):
        drawn = [group for group, times in enumerate(count_G) for _ in range(times)]
        assert len(drawn) == 7
        assert mean_F == pytest.approx(sum(sums_GF[g] for g in drawn) / sum(rows_G[g] for g in drawn))


def test_resamples_in_several_blocks_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sums_GF, rows_G = groups(9)
    whole = resampled_means(sums_GF, rows_G, seed=1, resamples=50)
    monkeypatch.setattr(bootstrap, "DRAWS_AT_ONCE", 4 * 9)
    assert np.allclose(resampled_means(sums_GF, rows_G, seed=1, resamples=50), whole, rtol=1e-12)


def test_a_seed_gives_the_same_resamples_and_another_seed_others() -> None:
    assert np.array_equal(counts(10, 4, 6, seed=0), counts(0, 14, 6, seed=0)[10:])
    assert not np.array_equal(counts(0, 4, 6, seed=0), counts(0, 4, 6, seed=1))


def test_every_group_is_drawn_as_often_as_every_other() -> None:
    drawn_G = counts(0, 4000, 5, seed=0).mean(axis=0)
    assert drawn_G == pytest.approx(np.ones(5), abs=0.06)  # standard error 0.014


def test_an_interval_cuts_the_same_share_from_both_ends() -> None:
    assert interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert interval(np.arange(1001.0), level=0.5) == pytest.approx((250.0, 750.0))


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    """40 normal groups, 300 times: 95 % asked for; the percentile bootstrap of 40 groups gives a little less."""
    random = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        sums_GF = random.normal(2.0, 1.0, (40, 1)) * 10.0
        low, high = interval(resampled_means(sums_GF, np.full(40, 10.0), seed=trial, resamples=400)[:, 0])
        held += low <= 2.0 <= high
    assert 0.89 <= held / 300 <= 0.98


def test_few_groups_have_a_wider_interval_and_many_the_plain_one() -> None:
    values_R = np.random.default_rng(0).normal(size=20_000)
    low, high = interval(values_R, groups=12)
    reach = stats.t.ppf(0.975, 11) * np.sqrt(12 / 11)
    assert (low, high) == pytest.approx((-reach, reach), abs=0.08)
    assert interval(values_R, groups=5000) == pytest.approx(interval(values_R), abs=0.01)
    assert interval(values_R, groups=2) == pytest.approx((values_R.min(), values_R.max()))


@pytest.mark.parametrize(("documents", "least"), [(6, 0.89), (12, 0.90), (30, 0.92)])
def test_intervals_by_document_hold_the_truth_and_by_sequence_do_not(documents: int, least: float) -> None:
    """Sequences of a document are alike: 0.18 of the variance, as of novels. 16 of each, 300 times."""
    random = np.random.default_rng(documents)
    held = {"documents": 0, "sequences": 0}
    for trial in range(300):
        of_documents = np.sqrt(0.18) * random.normal(size=(documents, 1))
        sums_DS = 10.0 * (2.0 + of_documents + np.sqrt(0.82) * random.normal(size=(documents, 16)))
        for over, sums_G in (("documents", sums_DS.sum(axis=1)), ("sequences", sums_DS.ravel())):
            rows_G = np.full(len(sums_G), 10.0 * documents * 16 / len(sums_G))
            (between,) = mean_intervals(sums_G[:, None], rows_G, seed=trial, resamples=400)
            assert between is not None
            held[over] += between[0] <= 2.0 <= between[1]
    assert held["documents"] / 300 >= least
    assert held["sequences"] / 300 < 0.80


def test_groups_without_rows_are_never_drawn_and_one_group_has_no_interval() -> None:
    sums_GF, rows_G = groups(9)
    empty = np.concatenate([sums_GF, np.zeros((3, 2))]), np.concatenate([rows_G, np.zeros(3)])
    means_RF = resampled_means(sums_GF, rows_G, seed=1)
    assert mean_intervals(*empty, seed=1) == [interval(means_R, groups=9) for means_R in means_RF.T]
    assert mean_intervals(sums_GF[:1], rows_G[:1], seed=1) == [None, None]
