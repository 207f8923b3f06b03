"""The grid of heads: its order, its names, its marks, and its cells as text."""

import math
from dataclasses import dataclass

import numpy as np

from alens.pictures.head_grid import HeadGrid
from alens.pictures.numbers import signed


@dataclass(frozen=True)
class OneHead:
    layer: int
    head: int
    effect: float | None
    says_nothing: bool = False


HEADS = [OneHead(3, 4, -1.0), OneHead(0, 10, None), OneHead(3, 1, 0.5, says_nothing=True), OneHead(0, 4, 2.0)]


def grid(**more: object) -> HeadGrid:
    return HeadGrid.from_heads(
        HEADS,
        lambda one: one.effect,
        lambda one: (one.effect or 0.0) > 1,
        title="t",
        number_title="nats",
        **more,
    )


def test_heads_in_any_order_have_their_places() -> None:
    drawn = grid()
    assert (drawn.row_names, drawn.column_names) == (["0", "3"], ["1", "4", "10"])
    expected = [[math.nan, 2.0, math.nan], [0.5, -1.0, math.nan]]
    np.testing.assert_array_equal(drawn.values_LH, expected)
    assert (drawn.marked, drawn.silent) == ({(0, 4)}, {(3, 1)})


def test_cells_have_number_star_and_sign_and_are_empty_where_nothing_is_known() -> None:
    assert grid().texts(signed) == [["", "+2.000*", ""], ["+0.500!", "-1.000", ""]]


def test_a_site_without_heads_is_the_one_column() -> None:
    drawn = HeadGrid(title="t", number_title="nats", values={(1, 0): 1.0, (2, 0): 2.0}, site="resid_post")
    assert (drawn.across, drawn.column_names, drawn.row_names) == ("site", ["resid_post"], ["1", "2"])
    assert grid().across == "head"


def test_pairs_of_heads_have_names_of_their_own() -> None:
    a, b = (2, 11), (10, 0)
    drawn = HeadGrid(
        title="t", number_title="nats", values={(b, a): 1.0, (a, b): 2.0}, names={a: "2.11!", b: "10.0"}
    )
    assert drawn.row_names == drawn.column_names == ["2.11!", "10.0"]
    assert drawn.texts(signed) == [["", "+2.000"], ["+1.000", ""]]


def test_only_a_grid_with_a_silent_lens_says_what_the_sign_means() -> None:
    assert grid().silence.startswith("! says nothing: ")
    assert HeadGrid(title="t", number_title="nats", values={(0, 0): None}).silence == ""


def test_a_grid_without_numbers_is_empty() -> None:
    assert HeadGrid(title="t", number_title="nats", values={(0, 0): None, (0, 1): math.nan}).is_empty
    assert not grid().is_empty
