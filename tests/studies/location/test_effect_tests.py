"""Which effects are significant, and where p-values do not hold."""

import dataclasses

import numpy as np
import pytest

from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.studies.location.effect_tests import spread_ratio
from alens.studies.location.locate import locate
from alens.studies.location.result import Location
from alens.studies.location.settings import LocateSettings
from alens.studies.location.term_rates import Rates

from .examples import MEN, WOMEN, one, prompts


def test_significance_follows_alpha(reader: LensedModel, terms: list[Term], location: Location) -> None:
    assert not any(each.significant for each in location.heads if each.lens.p_corrected > 0.05)
    lax = locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(alpha=0.999))
    assert sum(each.significant for each in lax.heads) > sum(each.significant for each in location.heads)
    assert one(lax, 3, 1).lens.high < one(location, 3, 1).lens.high


def test_too_few_prompts_are_told(reader: LensedModel, terms: list[Term], location: Location) -> None:
    assert location.smallest_p == pytest.approx(2 / 70) and location.can_be_significant
    few = locate(reader, terms, prompts(MEN[:2]), prompts(WOMEN[:2]))
    assert few.smallest_p == pytest.approx(2 / 6) and not few.can_be_significant
    settings = LocateSettings(correction="bonferroni")
    assert not locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=settings).can_be_significant


def test_where_p_does_not_hold_is_told(location: Location) -> None:
    assert location.needs_equal_spread  # 4 of each
    assert not dataclasses.replace(location, prompts=8, controls=8).needs_equal_spread
    in_pairs = dataclasses.replace(location.settings, paired=True)
    assert not dataclasses.replace(location, settings=in_pairs).needs_equal_spread
    assert not dataclasses.replace(location, controls=None).needs_equal_spread
    for ratio, unequal in ((1.9, False), (2.0, True), (0.5, True), (0.6, False), (None, False)):
        assert dataclasses.replace(location, spread_ratio=ratio).spreads_unequally == unequal


def test_the_ratio_of_spreads_is_a_mean_over_heads() -> None:
    random = np.random.default_rng(0)
    scores_PF, nothing = random.normal(size=(9, 3)), np.zeros((9, 3))
    ours, theirs, constant = (
        Rates(log_p_PF=each, p_PF=nothing, by_term_FW=nothing)
        for each in (scores_PF * [8.0, 2.0, 0.5], scores_PF + 3.0, nothing)
    )
    assert spread_ratio(ours, theirs) == pytest.approx(2.0)
    assert spread_ratio(theirs, ours) == pytest.approx(0.5)
    assert spread_ratio(ours, constant) is None
