"""Numbers as text, at the limits of each form; and that nothing else writes numbers for people."""

import ast
import re
from pathlib import Path

import pytest

from alens.pictures import numbers

PACKAGE = Path(numbers.__file__).parents[1]


@pytest.mark.parametrize(
    ("p", "digits", "text"),
    [
        (0.2, 3, "0.200"),
        (0.0005, 3, "0.001"),
        (0.0004, 3, "<0.001"),
        (1e-30, 4, "<0.0001"),
        (1.0, 4, "1.0000"),
    ],
)
def test_no_p_value_is_0(p: float, digits: int, text: str) -> None:
    assert numbers.p_value(p, digits) == text


def test_zero_has_no_sign() -> None:
    assert (numbers.fixed(-0.0001), numbers.signed(-0.0001)) == ("0.000", "+0.000")
    assert numbers.interval((-0.0001, 0.25), 2, sign=True) == "+0.00 to +0.25"


@pytest.mark.parametrize(
    "form", [numbers.fixed, numbers.signed, numbers.interval, numbers.significant, numbers.percent, numbers.p_value, numbers.times]
)  # fmt: skip
def test_what_is_not_known_is_a_dash(form: object) -> None:
    assert callable(form) and form(None) == "-"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100.0%"),
        (0.1234, "12.3%"),
        (0.00573, "0.57%"),
        (0.00061, "0.061%"),
        (3e-6, "<0.001%"),
        (0.0, "0%"),
    ],
)
def test_small_shares_keep_two_digits(share: float, text: str) -> None:
    assert numbers.percent(share) == text
    assert numbers.percent(share, "") == text.removesuffix("%")


def test_a_change_of_a_share_has_a_sign() -> None:
    assert [numbers.percent_change(x) for x in (0.012, -0.2, 1e-9)] == ["+1.2%", "-20.0%", "+<0.001%"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.23456, "1.23"), (0.00123, "0.00123"), (0.000123, "1.2e-04"), (123456, "1.2e+05")],
)
def test_numbers_of_any_size_have_plain_digits_where_they_fit(value: float, text: str) -> None:
    assert numbers.significant(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1648.6, "1,650x"),
        (9.96, "10.0x"),
        (1.64, "1.6x"),
        (0.045, "0.045x"),
        (99_949, "99,900x"),
        (2.2e8, ">99,999x"),
        (1e-7, "<0.001x"),
        (0, "0x"),
    ],
)
def test_ratios(ratio: float, text: str) -> None:
    assert numbers.times(ratio) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999_900, "1,000 kB"),
        (1e6, "1 MB"),
        (1.234e9, "1.23 GB"),
        (5e15, "5,000 TB"),
    ],
)
def test_sizes(num_bytes: float, text: str) -> None:
    assert numbers.size(num_bytes) == text


def test_times() -> None:
    assert [numbers.duration(s) for s in (8.84, 66, 8280)] == ["8.8 s", "1.1 min", "2.3 h"]
    assert [numbers.clock(s) for s in (38.4, 3723)] == ["0:38", "1:02:03"]


def formats(path: Path) -> list[str]:
    """The format of every number with digits after the point that a module writes by itself."""
    specs = [
        part.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FormattedValue) and isinstance(node.format_spec, ast.JoinedStr)
        for part in node.format_spec.values
        if isinstance(part, ast.Constant)
    ]
    return [f"{path.name}: {spec}" for spec in specs if re.search(r"\.\d*[fge%]?$", str(spec))]


@pytest.mark.parametrize("room", ["cli", "pictures", "sweep/table.py", "exchange/model_card.py"])
def test_numbers_for_people_are_written_by_this_module_alone(room: str) -> None:
    at = PACKAGE / room
    modules = sorted(at.rglob("*.py")) if at.is_dir() else [at]
    assert [spec for path in modules if path.name != "numbers.py" for spec in formats(path)] == []


def test_one_is_singular() -> None:
    assert [numbers.number_of(n, "layer") for n in (0, 1, 1234)] == ["0 layers", "1 layer", "1,234 layers"]
    assert numbers.number_of(2, "loss", "losses") == "2 losses"
