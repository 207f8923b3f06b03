"""The base class of results: what a function of alens returns, shown in one line, as JSON and as a pandas DataFrame.

In: a dataclass that derives from `Result`. Out: a short `repr`, the document that a command prints with `--json`, a
frame with one row a head, prompt or figure, and a short table of the most telling rows for notebooks.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from alens.errors import RunError
from alens.short_table import short_table

if TYPE_CHECKING:
    import pandas

REPR_LENGTH = 200
"""Characters of a `repr` at most."""


class Result:
    """A frozen dataclass that shows itself.

    A subclass is a dataclass and defines `headline` and `records`; it overrides `to_json` where the document is not
    the dataclass's own fields, and `telling` where the first records are not the most telling ones.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        cls.__repr__ = Result.__repr__  # type: ignore[method-assign]  # else @dataclass writes one of all fields, arrays too

    def headline(self) -> str:
        """What a person wants to know first, in a few words."""
        return ", ".join(_short_fields(self))

    def records(self) -> list[dict[str, Any]]:
        """The rows of the frame, as flat dictionaries of plain values.

        The default makes one row of each entry of `heads` in the JSON document.
        """
        return [flat(head) for head in self.to_json()["heads"]]

    def telling(self) -> list[dict[str, Any]]:
        """What a notebook shows: rows for `short_table`, the most telling first. The default are the records."""
        return self.records()

    def to_json(self) -> dict[str, Any]:
        """The result as dictionaries, lists, strings, numbers, booleans and None."""
        fields: dict[str, Any] = plain(
            {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        )
        return fields

    def to_frame(self) -> "pandas.DataFrame":
        """The records as a pandas DataFrame.

        Raises `RunError` where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise RunError(
                "to_frame needs pandas, which is not installed: run `pip install pandas`, or take records()"
            ) from error
        return pandas.DataFrame(self.records())

    def _repr_html_(self) -> str:
        """What Jupyter shows: the headline and the first of the telling rows."""
        return short_table(f"{type(self).__name__}: {self.headline()}", self.telling())

    def __repr__(self) -> str:
        text = f"<{type(self).__name__}: {self.headline()}>"
        return text if len(text) <= REPR_LENGTH else f"{text[: REPR_LENGTH - 4]}...>"


def chosen(records: Iterable[Mapping[str, Any]], *names: str) -> list[dict[str, Any]]:
    """The records with these names alone, as far as they have them, in this order."""
    return [{name: record[name] for name in names if name in record} for record in records]


def number_of(number: int, noun: str, nouns: str = "") -> str:
    """`1 head`, or `1,234 heads`."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def plain(value: Any) -> Any:
    """`value` as JSON can write it: dataclasses as dictionaries, arrays and tuples as lists, paths as strings."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Result):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        return value.tolist()
    return str(value)


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`record` without nesting: the names of a nested dictionary are joined by dots, as in `lens.kl`.

    What is called `interval` or stands in `intervals` becomes two numbers, `.low` and `.high`. Other lists stay as they
    are.
    """
    flattened: dict[str, Any] = {}
    for name, value in record.items():
        if name == "interval" or prefix.endswith("intervals."):
            low, high = value or (None, None)
            flattened |= {f"{prefix}{name}.low": low, f"{prefix}{name}.high": high}
        elif isinstance(value, Mapping):
            flattened |= flat(value, f"{prefix}{name}.")
        else:
            flattened[f"{prefix}{name}"] = value
    return flattened


def _short_fields(result: Result) -> Iterator[str]:
    """Fields that are one number or one string, as `name=value`."""
    for one in dataclasses.fields(result):
        value = getattr(result, one.name)
        if isinstance(value, str | bool | int | float):
            yield (
                f"{one.name}={value!r}" if isinstance(value, str | bool | int) else f"{one.name}={value:.4g}"
            )
