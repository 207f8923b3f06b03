"""Prompts and controls that cannot be tested are refused."""

from pathlib import Path

import pytest

from alens import load_lenses
from alens.errors import RequestError
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.studies.location.locate import by_label, locate
from alens.studies.location.settings import LocateSettings

from .examples import MEN, WOMEN, prompts


def test_one_file_can_hold_controls() -> None:
    both = [*prompts(MEN, "men"), *prompts(WOMEN, "control"), *prompts(["x"])]
    ours, controls = by_label(both)
    assert [p.text for p in ours] == [*MEN, "x"] and [p.text for p in controls] == WOMEN


@pytest.mark.parametrize(
    ("ours", "theirs", "given", "message"),
    [
        (MEN[:1], WOMEN, {}, "1 prompt is too few to tell a head from chance: give 2 or more"),
        (MEN, WOMEN[:1], {}, "1 control prompt is too few"),
        (MEN, WOMEN[:3], {"paired": True}, "4 prompts and 3 controls are not pairs"),
        (MEN, None, {"paired": True}, "pairs need controls"),
        (MEN, WOMEN, {"layers": (2,)}, "no lens for layer 2"),
        (MEN, WOMEN, {"heads": (0,)}, "no lens for head 0"),
        ([*MEN, " the" * 300], WOMEN, {}, "p.txt:5: the prompt has 300 tokens"),
    ],
)
def test_wrong_requests_are_refused(
    reader: LensedModel, terms: list[Term], ours: list[str], theirs: list[str] | None, given, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        locate(
            reader,
            terms,
            prompts(ours),
            None if theirs is None else prompts(theirs),
            settings=LocateSettings(**given),
        )


def test_no_terms_are_refused(reader: LensedModel) -> None:
    with pytest.raises(RequestError, match="no term was given"):
        locate(reader, [], prompts(MEN), prompts(WOMEN))


def test_lenses_that_do_not_say_the_mean_output_need_controls(demo_lenses: Path, terms: list[Term]) -> None:
    silent = LensedModel(load_lenses(demo_lenses), device="cpu")
    silent.log_mean_V = None
    with pytest.raises(RequestError, match="does not say the model's mean output: give control prompts"):
        locate(silent, terms, prompts(MEN))
    location = locate(silent, terms, prompts(MEN), prompts(WOMEN))
    assert all(each.lens.lift is None for each in location.heads)
