"""Which heads: by number in each layer, or by name. `18.6` is head 6 of layer 18, in tables, messages and options alike.

In: what somebody asks for, from the command line, a TOML file or Python. Out: `Heads`: their layers and numbers, in order.
Each layer may have other heads.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Annotated, Any, Self

from alens.errors import RequestError

Head = tuple[int, int]
"""Layer, head."""


class ByName:
    """Marks a field of a settings class that says which heads."""


HeadNames = Annotated[str | Sequence[int | str | Head], ByName]
"""Head numbers, which hold in each chosen layer ("0,3", [0, 3]), or heads by name ("18.6,24.4,17.3-5",
["18.6", "24.4"], [(18, 6), (24, 4)])."""

HeadsJson = tuple[int, ...] | dict[str, tuple[int, ...]]
"""Heads in a document, beside their layers: the numbers that all layers share, or numbers by layer."""

EXPECTED_HEADS = "head numbers such as 0,3-5, or heads by name such as 18.6,24.4,17.3-5"
NOT_BOTH = "either head numbers, which hold in each layer, or heads by name such as 18.6, not both"
NO_FRACTION = 'a string such as "18.6": as a number, head 18.10 would be 18.1'

LONGEST = 60
"""Characters of one part of a list, such as `18.3-5`."""

MOST_NUMBERS = 10_000
"""The most numbers that a range may stand for: more than there are layers, heads or jobs, and few enough to hold."""


@dataclass(frozen=True)
class Heads:
    """Some heads, layer by layer; a layer may have other heads than the next."""

    pairs: tuple[Head, ...]

    def __post_init__(self) -> None:
        """Raises `ValueError` unless each is named once, and those of a layer stand together."""
        if not self.pairs or sum(len(numbers) for numbers in self.by_layer.values()) != len(set(self.pairs)):
            raise ValueError("heads are not named once each")
        if list(self.pairs) != [(layer, head) for layer in self.layers for head in self.by_layer[layer]]:
            raise ValueError("the heads of a layer do not stand together")

    @classmethod
    def grid(cls, layers: Iterable[int], numbers: Sequence[int]) -> Self:
        """The same heads in each layer."""
        return cls(tuple((layer, head) for layer in layers for head in numbers))

    @classmethod
    def grouped(cls, pairs: Iterable[Head]) -> Self:
        """These heads, each once, layer by layer: layers and heads in the order in which they are first named."""
        by_layer: dict[int, list[Head]] = {}
        for layer, head in dict.fromkeys(pairs):
            by_layer.setdefault(layer, []).append((layer, head))
        return cls(tuple(pair for of_layer in by_layer.values() for pair in of_layer))

    @cached_property
    def by_layer(self) -> Mapping[int, tuple[int, ...]]:
        """The head numbers of each layer, which the first axis of its tensors follows."""
        by_layer: dict[int, tuple[int, ...]] = {}
        for layer, head in self.pairs:
            by_layer[layer] = (*by_layer.get(layer, ()), head)
        return by_layer

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, in order."""
        return tuple(self.by_layer)

    @property
    def shared(self) -> tuple[int, ...] | None:
        """The head numbers, where they are the same in each layer; else None."""
        numbers = next(iter(self.by_layer.values()))
        return numbers if all(other == numbers for other in self.by_layer.values()) else None

    @property
    def columns(self) -> tuple[int, ...]:
        """All head numbers that some layer has, sorted."""
        return tuple(sorted({head for _, head in self.pairs}))

    @property
    def names(self) -> list[str]:
        """`18.6` for each."""
        return [f"{layer}.{head}" for layer, head in self.pairs]

    def __iter__(self) -> Iterator[Head]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __contains__(self, pair: object) -> bool:
        return pair in self.pairs

    def __str__(self) -> str:
        """As `--heads` takes them: `18.6,24.4,17.3-5`."""
        return ",".join(
            f"{layer}.{run[0]}" if len(run) == 1 else f"{layer}.{run[0]}-{run[-1]}"
            for layer, numbers in self.by_layer.items()
            for run in _runs(numbers)
        )

    def place(self, layer: int, head: int) -> int:
        """The place of a head on the first axis of its layer's tensors. Raises `ValueError` for one that is not here."""
        return self.by_layer.get(layer, ()).index(head)

    def ordered(self) -> Self:
        """The same, sorted by layer and head."""
        return type(self)(tuple(sorted(self.pairs)))

    def within(self, layers: Iterable[int]) -> Self:
        """Those of these layers, in their order."""
        return type(self)(tuple((layer, head) for layer in layers for head in self.by_layer[layer]))

    # Documents

    @property
    def as_json(self) -> HeadsJson:
        """What a document holds beside `layers`: the numbers alone where they are the same in each layer."""
        if self.shared is not None:
            return self.shared
        return {str(layer): numbers for layer, numbers in self.by_layer.items()}

    @classmethod
    def from_json(cls, layers: Sequence[int], heads: HeadsJson) -> Self:
        """What a document says. Raises `TypeError` for what cannot be."""
        if not 0 < len(set(layers)) == len(layers) or not heads:
            raise TypeError("layers and heads are not named once each")
        if not isinstance(heads, Mapping):
            by_layer: Mapping[str, Sequence[int]] = {str(layer): heads for layer in layers}
        elif [str(layer) for layer in layers] != list(heads):
            raise TypeError("layers and heads name different layers")
        else:
            by_layer = heads
        if not all(0 < len(set(numbers)) == len(numbers) for numbers in by_layer.values()):
            raise TypeError("layers and heads are not named once each")
        return cls(tuple((layer, head) for layer in layers for head in by_layer[str(layer)]))


def normal(heads: Any) -> tuple[int, ...] | tuple[str, ...]:
    """What somebody gave as heads, as settings hold it: (0, 3), or ("18.6", "24.4").

    Raises `ValueError`, which says what it should be.
    """
    if isinstance(heads, float):
        raise ValueError(NO_FRACTION)
    parts = heads.split(",") if isinstance(heads, str) else heads
    if not isinstance(parts, list | tuple | range | Heads):
        raise ValueError(EXPECTED_HEADS)
    numbers: list[int] = []
    names: list[str] = []
    for part in parts:
        layer, stretch = _part(part)
        if layer is None:
            numbers += stretch
        else:
            names += [f"{layer}.{head}" for head in stretch]
    if numbers and names:
        raise ValueError(NOT_BOTH)
    return tuple(names) if names else tuple(numbers)


def requested(layers: Sequence[int] | None, heads: Any, there: Heads) -> Heads:
    """What is asked for among the heads of `there`, which are all of them by default; each once, in the order asked for.

    The caller has checked that `there` has these layers, and checks that the heads exist.

    Raises `RequestError` for an empty choice, for heads of another form, and for named heads of other layers.
    """
    if heads is not None:
        try:
            heads = normal(heads)
        except ValueError as error:
            raise RequestError(f"heads is {heads!r}: it must be {error}") from None
    for given, what in ((layers, "layers"), (heads, "heads")):
        if given is not None and not given:
            raise RequestError(f"{what} is empty: name one or more, or leave it out for all")
    chosen = there.layers if layers is None else layers
    if heads is None:
        return Heads.grouped((layer, head) for layer in chosen for head in there.by_layer[layer])
    if not isinstance(heads[0], str):
        return Heads.grouped((layer, head) for layer in chosen for head in heads)
    pairs = pairs_of(heads)
    outside = [f"{layer}.{head}" for layer, head in pairs if layers is not None and layer not in layers]
    if outside:
        raise RequestError(
            f"head {outside[0]} is not in layers {','.join(map(str, chosen))}: name heads of these, or leave the layers out"
        )
    return Heads.grouped(pairs)


def pairs_of(names: Iterable[str]) -> list[Head]:
    """(18, 6) for "18.6"."""
    return [(int(layer), int(head)) for layer, _, head in (name.partition(".") for name in names)]


def checked_layers(layers: Any) -> tuple[int, ...] | None:
    """The layers that somebody asked for, or None. Raises `RequestError` for anything but a list of whole numbers."""
    if layers is None:
        return None
    if not isinstance(layers, list | tuple | range) or not all(map(_is_number, layers)):
        raise RequestError(f"layers is {layers!r}: it must be a list of whole numbers such as [0, 3]")
    return tuple(int(layer) for layer in layers)


PART = re.compile(r"\s*(?:(\d+)\s*\.\s*)?(\d+)\s*(?:-\s*(\d+)\s*)?", re.ASCII)


def _part(part: Any) -> tuple[int | None, Sequence[int]]:
    """Layer (None where it is left out) and numbers of one part: 3, (18, 6), "3", "3-5", "18.6", "18.3-5"."""
    if _is_number(part):
        return None, [int(part)]
    if isinstance(part, float):
        raise ValueError(NO_FRACTION)
    if isinstance(part, list | tuple) and len(part) == 2 and all(map(_is_number, part)):
        return int(part[0]), [int(part[1])]
    match = PART.fullmatch(part) if isinstance(part, str) and len(part) <= LONGEST else None
    if match is None:
        raise ValueError(EXPECTED_HEADS)
    layer, first, last = (None if text is None else int(text) for text in match.groups())
    assert first is not None
    stretch = range(first, (first if last is None else last) + 1)
    if not 0 < len(stretch) <= MOST_NUMBERS:
        raise ValueError(EXPECTED_HEADS)
    return layer, stretch


def _is_number(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def listed(numbers: Sequence[int]) -> str:
    """Numbers as `--layers` takes them: `0,3-5`."""
    return ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in _runs(numbers))


def _runs(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Stretches of numbers that follow each other."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[start:end]
            start = end
