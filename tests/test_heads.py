"""Which heads: what people may write, and the heads of each layer that it means."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from alens.errors import RequestError
from alens.fields import check
from alens.heads import HeadNames, Heads, checked_layers, normal, requested

THERE = Heads.grid((0, 1, 2), (0, 1, 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A settings class with heads."""

    heads: HeadNames | None = None

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("18.6,24.4,17.3-5", ("18.6", "24.4", "17.3", "17.4", "17.5")),
        (" 18.6 , 24.4", ("18.6", "24.4")),
        (["18.6", "17.3-4"], ("18.6", "17.3", "17.4")),
        ([(18, 6), [24, 10]], ("18.6", "24.10")),
        ([(np.int64(1), np.int64(2))], ("1.2",)),
        (Heads.grid((1, 2), (0,)), ("1.0", "2.0")),
        ("0,3-5", (0, 3, 4, 5)),
        ((18, 6), (18, 6)),
        (range(2), (0, 1)),
        ([], ()),
    ],
)
def test_settings_hold_numbers_or_names(given: Any, means: tuple[Any, ...]) -> None:
    assert normal(given) == means
    assert Asked(heads=given).heads == means
    assert normal(means) == means


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (18.1, 'heads is 18.1: it must be a string such as "18.6": as a number, head 18.10 would be 18.1'),
        ([18.1], "as a number, head 18.10 would be 18.1"),
        ("0,18.6", "it must be either head numbers, which hold in each layer, or heads by name such as 18.6"),
        ([0, (1, 2)], "not both"),
        (3, "heads is 3: it must be head numbers such as 0,3-5, or heads by name such as 18.6,24.4,17.3-5"),
        ("", "it must be head numbers such as"),
        ("18.", "it must be head numbers such as"),
        ("-1", "it must be head numbers such as"),
        ("1.5-3", "it must be head numbers such as"),
        ("1.0-99999999999", "it must be head numbers such as"),
        ("1" * 5000, "it must be head numbers such as"),
        ([True], "it must be head numbers such as"),
        ([(1, 2, 3)], "it must be head numbers such as"),
        ({"1": [2]}, "it must be head numbers such as"),
    ],
)
def test_anything_else_is_refused_in_one_line(given: Any, says: str) -> None:
    with pytest.raises(RequestError) as refused:
        Asked(heads=given)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(RequestError) as refused:
        requested(None, given, THERE)
    assert says in str(refused.value)


def test_heads_stand_layer_by_layer_in_the_order_asked_for() -> None:
    heads = requested(None, "2.1,0.2,2.0,0.2", THERE)
    assert heads.pairs == ((2, 1), (2, 0), (0, 2))
    assert heads.layers == (2, 0) and heads.by_layer == {2: (1, 0), 0: (2,)}
    assert heads.place(2, 0) == 1 and (0, 2) in heads and (0, 0) not in heads
    assert heads.names == ["2.1", "2.0", "0.2"] and len(heads) == 3
    assert heads.ordered().pairs == ((0, 2), (2, 0), (2, 1)) and heads.columns == (0, 1, 2)


@pytest.mark.parametrize("text", ["18.6,24.4,17.3-5", "0.0-2,1.0-2", "5.1,5.0"])
def test_what_is_printed_is_what_is_taken(text: str) -> None:
    heads = requested(None, text, THERE)
    assert str(heads) == text
    assert requested(None, str(heads), THERE) == heads == requested(None, heads.names, THERE)
    assert Heads.from_json(heads.layers, heads.as_json) == heads


def test_numbers_hold_in_each_chosen_layer() -> None:
    assert requested((2, 0), "1", THERE).pairs == ((2, 1), (0, 1))
    assert requested(None, None, THERE) == THERE
    some = requested(None, "0.1,1.2", THERE)
    assert requested((1,), None, some).pairs == ((1, 2),)
    assert requested((0, 1), "0.1", THERE).pairs == ((0, 1),)


def test_named_heads_outside_the_layers_are_refused() -> None:
    with pytest.raises(RequestError, match=r"head 2\.1 is not in layers 0,1: name heads of these, or leave"):
        requested((0, 1), "0.1,2.1", THERE)


@pytest.mark.parametrize("layers", [3, "3", 1.5, [1.5], [True], {1}])
def test_layers_that_are_not_a_list_of_numbers_are_refused(layers: Any) -> None:
    with pytest.raises(RequestError, match="it must be a list of whole numbers such as"):
        checked_layers(layers)


def test_a_rectangle_is_a_rectangle_however_it_is_named() -> None:
    heads = requested(None, "1.0,1.2,0.0,0.2", THERE)
    assert heads == Heads.grid((1, 0), (0, 2)) and heads.shared == heads.as_json == (0, 2)
    assert requested(None, "1.0,0.2", THERE).shared is None
    assert requested(None, "1.0-1,0.1,0.0", THERE).as_json == {"1": (0, 1), "0": (1, 0)}


@pytest.mark.parametrize(
    ("layers", "heads"),
    [((), (0,)), ((0, 0), (0,)), ((0,), ()), ((0,), (1, 1)), ((0, 1), {"0": (1,)}), ((0,), {"0": ()})],
)
def test_documents_that_cannot_be_are_refused(layers: Any, heads: Any) -> None:
    with pytest.raises(TypeError, match="layers and heads"):
        Heads.from_json(layers, heads)
