"""Numbers of heads by layer and head: the grid from which heat maps, pages and tables are drawn.

In: a number for each head, which heads are marked, and whose lenses say nothing. Out: a `HeadGrid`. Its rows are layers
and its columns heads; where lenses are put on other heads, rows are lenses and columns what they read.
Shapes: L rows, H columns.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from alens.lens.marks import MEANING, SAYS_NOTHING, SIGN
from alens.store.schema import ATTN_Z

Key = int | tuple[int, int]
"""A layer or the number of a head; (layer, head) where a row or a column is a head of the whole model."""

Place = tuple[Key, Key]
"""Row and column of a cell."""


class OneHead(Protocol):
    """What a study found for one head."""

    @property
    def layer(self) -> int: ...
    @property
    def head(self) -> int: ...
    @property
    def says_nothing(self) -> bool: ...


H = TypeVar("H", bound=OneHead)


@dataclass(frozen=True, kw_only=True)
class HeadGrid:
    """One number for each head, with what a reader needs to understand it.

    Rows and columns are sorted. A cell is empty where its number is missing, None or not finite.
    """

    title: str
    values: Mapping[Place, float | None]
    number_title: str
    """What the numbers are, with their unit."""
    centre: float | None = None
    """Where colours change sides, such as 0 for differences. None: colours go from the lowest to the highest number."""
    marked: Collection[Place] = frozenset()
    """Cells that are set off, such as significant ones."""
    mark_title: str = ""
    """What a mark means."""
    silent: Collection[Place] = frozenset()
    """Cells of lenses that say nothing (`alens.lens.marks`)."""
    row_title: str = "layer"
    column_title: str = "head"
    names: Mapping[Key, str] = field(default_factory=dict)
    """Names of rows and columns that are not called by their key."""
    site: str = ATTN_Z
    """What the lenses read. A site of the residual stream has no heads: its one column has the name of the site."""

    @classmethod
    def from_heads(
        cls,
        heads: Iterable[H],
        value: Callable[[H], float | None],
        marked: Callable[[H], bool] = lambda _: False,
        **titles: Any,
    ) -> "HeadGrid":
        """The grid of `value` for each of `heads`; `titles` are further fields."""
        by_place = {(one.layer, one.head): one for one in heads}
        return cls(
            values={place: value(one) for place, one in by_place.items()},
            marked={place for place, one in by_place.items() if marked(one)},
            silent={place for place, one in by_place.items() if one.says_nothing},
            **titles,
        )

    @property
    def rows(self) -> list[Key]:
        """Keys of the rows, in order."""
        return sorted({row for row, _ in self.values})

    @property
    def columns(self) -> list[Key]:
        """Keys of the columns, in order."""
        return sorted({column for _, column in self.values})

    @property
    def row_names(self) -> list[str]:
        """What stands before each row."""
        return [self.names.get(row, str(row)) for row in self.rows]

    @property
    def column_names(self) -> list[str]:
        """What stands above each column."""
        if self.site != ATTN_Z:
            return [self.site]
        return [self.names.get(column, str(column)) for column in self.columns]

    @property
    def across(self) -> str:
        """What the columns are."""
        return self.column_title if self.site == ATTN_Z else "site"

    @property
    def values_LH(self) -> npt.NDArray[np.float64]:
        """(L, H) float64: the numbers, NaN in empty cells."""
        values = [[self.values.get((row, column)) for column in self.columns] for row in self.rows]
        return np.array(
            [[math.nan if value is None else value for value in row] for row in values], dtype=np.float64
        )

    @property
    def is_empty(self) -> bool:
        """Whether no cell has a number."""
        return not np.isfinite(self.values_LH).any()

    @property
    def silence(self) -> str:
        """What the sign of lenses that say nothing means; empty where no cell has it."""
        return f"{SIGN} {SAYS_NOTHING}: {MEANING}" if self.silent else ""

    def sign(self, place: Place) -> str:
        """The sign behind the number of a lens that says nothing, else nothing."""
        return SIGN if place in self.silent else ""

    def star(self, place: Place) -> str:
        """The star behind a marked number, else nothing."""
        return "*" if place in self.marked else ""

    def texts(self, number: Callable[[float], str]) -> list[list[str]]:
        """The cells of each row as text: the value as `number` writes it, then its star and sign."""
        return [[self.text((row, column), number) for column in self.columns] for row in self.rows]

    def text(self, place: Place, number: Callable[[float], str]) -> str:
        """One cell as text; empty where the grid has no number there."""
        value = self.values.get(place)
        if value is None or not math.isfinite(value):
            return ""
        return f"{number(value)}{self.star(place)}{self.sign(place)}"
