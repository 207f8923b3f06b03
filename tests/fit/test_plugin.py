"""Designs and objectives by name: those of alens, and your own in a file of the working directory."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alens.errors import RequestError
from alens.fit import plugin
from alens.fit.objectives import OBJECTIVES
from alens.fit.objectives.objective import Objective
from alens.lens.designs import DESIGNS
from alens.lens.designs.design import Design

OWN = """
from alens.fit.objectives.objective import Objective

class Mine(Objective):
    def __init__(self, *, weight=1.0, name="x"):
        self.weight = weight

class Any(Objective):
    def __init__(self, **options):
        self.options = options

class Other:
    pass

not_a_class = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with `own_losses.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (tmp_path / "own_losses.py").write_text(OWN)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("own_", "broken_")):
            del sys.modules[name]


@pytest.mark.parametrize(("known", "base"), [(DESIGNS, Design), (OBJECTIVES, Objective)])
def test_every_name_of_alens_is_a_class_of_its_kind(known: dict[str, str], base: type) -> None:
    classes = [plugin.find("it", name, known, base) for name in known]
    assert all(issubclass(one, base) for one in classes) and len(set(classes)) == len(known)


def test_a_class_in_the_working_directory_is_found_and_made(own: Path) -> None:
    plugin_class = plugin.find("objective", "own_losses:Mine", OBJECTIVES, Objective)
    assert plugin.make("objective", "own_losses:Mine", plugin_class, {"weight": 2.5}).weight == 2.5


def test_a_class_that_takes_any_option_gets_it(own: Path) -> None:
    plugin_class = plugin.find("objective", "own_losses:Any", OBJECTIVES, Objective)
    assert plugin.make("objective", "own_losses:Any", plugin_class, {"a": 1}).options == {"a": 1}


def refused_name(name: str) -> str:
    with pytest.raises(RequestError) as caught:
        plugin.find("objective", name, OBJECTIVES, Objective)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("l2", "objective is 'l2': it must be one of forward-kl, reverse-kl"),
        ("own_missing:Mine", "cannot import own_missing"),
        ("own_losses:Yours", "own_losses has no 'Yours'"),
        ("own_losses:Other", "it is not a subclass of alens.fit.objectives.objective.Objective"),
        ("own_losses:not_a_class", "it is not a subclass of"),
        ("alens.lens.designs.linear:Linear", "it is not a subclass of"),
        (":Mine", "it must be module:Class"),
        ("own_losses:", "it must be module:Class"),
        (".own_losses:Mine", "it must be module:Class"),
        ("own losses.py:Mine", "it must be module:Class"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(own: Path, name: str, message: str) -> None:
    assert message in refused_name(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", "cannot import broken_one (No module named 'nothing_of_that_name')"),
        ("def f(:\n  pass", "cannot import broken_one (SyntaxError"),
        ("raise ValueError('a\\nb')", "cannot import broken_one (ValueError"),
        ("import sys; sys.no_such_thing", "cannot import broken_one (AttributeError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(own: Path, text: str, message: str) -> None:
    (own / "broken_one.py").write_text(text)
    assert message in refused_name("broken_one:Mine")


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("own_losses:Mine", "wait", "objective own_losses:Mine has no option 'wait': it has weight, name"),
        ("forward-kl", "rank", "objective forward-kl has no option 'rank': it has none"),
    ],
)
def test_an_option_that_there_is_not_is_refused(own: Path, name: str, option: str, message: str) -> None:
    plugin_class = plugin.find("objective", name, OBJECTIVES, Objective)
    with pytest.raises(RequestError, match=message):
        plugin.make("objective", name, plugin_class, {option: 1})
