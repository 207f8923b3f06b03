"""Lists of layers and heads (`--layers`, `--heads`): whatever is typed is a list of numbers, or one line."""

from typing import Any

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alens.cli.value_types import MOST_NUMBERS, NUMBERS
from alens.store.status import array_specification

LIKE_LISTS = st.text(alphabet="0123456789,-+ ._eE\u0661\u00b2\x00", max_size=24)


def convert(value: Any) -> tuple[int, ...]:
    return NUMBERS.convert(value, None, None)


@given(st.text(max_size=40) | LIKE_LISTS)
@example("0-99999999999999999999")
@example("5-3")
@example("-1")
@example("1--2")
@example("1_000")
@example("9" * 5000)
def test_any_text_is_numbers_from_0_on_or_one_line(text: str) -> None:
    try:
        value = convert(text)
    except click.UsageError as error:
        assert "is not a list of numbers such as 0,2,5-7" in error.format_message()
    else:
        assert value and all(type(number) is int and number >= 0 for number in value)


@given(st.lists(st.integers(0, 500), min_size=1, unique=True).map(sorted))
def test_stretches_are_read_as_they_are_written(numbers: list[int]) -> None:
    assert convert(array_specification(numbers)) == tuple(numbers)


@given(st.lists(st.integers(0, 10**6), max_size=8))
def test_a_list_of_a_configuration_file_stays_what_it_is(numbers: list[int]) -> None:
    assert convert(numbers) == tuple(numbers)


@pytest.mark.parametrize("value", [[2.7], [True], ["3"], [None], [[0]], [-1], [float("nan")], [10**30]])
def test_a_list_of_anything_else_is_one_line(value: list[Any]) -> None:
    with pytest.raises(click.UsageError, match="is not a list of numbers"):
        convert(value)


def test_a_stretch_has_an_end() -> None:
    assert len(convert(f"0-{MOST_NUMBERS - 1}")) == MOST_NUMBERS
    with pytest.raises(click.UsageError):
        convert(f"0-{MOST_NUMBERS}")
