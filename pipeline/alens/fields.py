"""The fields of a settings class: type, choices, bounds, default and help of each, and whether a value fits.

In: a frozen dataclass. Its annotations say what a value may be (`int`, `float`, `bool`, `str`, `Path`, `dict`,
`tuple[int, ...]`, `Literal[...]`, `Annotated[int, Ge(1)]`, `HeadNames`, each also `| None`), the docstring under a field
says what it means. Out: a `Field` for each, from which the command line makes options (`alens.cli.options`), and one check for values
from TOML files, from sweeps and from Python.

pydantic and tyro read docstrings from the source in the same way; neither keeps its import below 50 ms.
"""

import ast
import dataclasses
import functools
import inspect
import math
import numbers
import operator
import re
import textwrap
from collections.abc import Hashable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from alens.errors import RequestError
from alens.heads import EXPECTED_HEADS, ByName, normal

NO_DEFAULT = dataclasses.MISSING
EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    dict: "a table of options such as {rank = 8}",
    ByName: EXPECTED_HEADS,
}
EXPECTED_LISTS = {
    int: "a list of whole numbers such as [0, 3]",
    float: "a list of numbers such as [-2, 0.5]",
    str: 'a list of strings such as ["a", "b"]',
    Path: "a list of paths",
}
BOUNDS = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "above"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "less than"),
}
"""Bounds of annotated_types by name: the comparison that must hold, and its words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a settings class."""

    name: str
    kind: type
    """The type of a value, or of each of several."""
    others: tuple[type, ...]
    """Further types that it may have."""
    several: bool
    """Whether it is a tuple."""
    optional: bool
    """Whether it may be None."""
    choices: tuple[str, ...]
    """The values of a `Literal`; empty where any will do."""
    bounds: dict[str, float]
    """By their names in annotated_types: `ge`, `gt`, `le`, `lt`."""
    default: Any
    """`NO_DEFAULT` where a value has to be given."""
    help: str
    """The docstring, without its last sentence where that begins with `None:`."""
    if_none: str | None
    """What that sentence says: what None means."""

    @property
    def expected(self) -> str:
        """What a value is, in words."""
        return (EXPECTED_LISTS if self.several else EXPECTED)[self.kind]

    def mismatch(self, value: Any) -> str | None:
        """What `value` should be, where it has the wrong type, is none of the choices, or is out of bounds."""
        if (value is None and self.optional) or isinstance(value, self.others):
            return None
        if self.kind is ByName:
            return _wrong_heads(value)
        if not self._has_type(value):
            return self.expected
        parts = value if self.several else (value,)
        if self.choices and not all(part in self.choices for part in parts):
            return f"one of {', '.join(self.choices)}"
        if self.kind in (int, float) and not all(self._is_within(part) for part in parts):
            return self.limits()
        return None

    def _has_type(self, value: Any) -> bool:
        if not self.several:
            return has_type(self.kind, value)
        return isinstance(value, list | tuple) and all(has_type(self.kind, part) for part in value)

    def _is_within(self, number: float) -> bool:
        return math.isfinite(number) and all(
            BOUNDS[name][0](number, bound) for name, bound in self.bounds.items()
        )

    def limits(self) -> str:
        """The bounds in words."""
        limits = " and ".join(
            f"{words} {_power(self.bounds[name])}"
            for name, (_, words) in BOUNDS.items()
            if name in self.bounds
        )
        if self.kind is float:
            return f"a number {limits}" if limits else "a finite number"
        return limits


def has_type(kind: type, value: Any) -> bool:
    """Whether a value is of this type. A whole number is a number too, true and false are none; text is not a number."""
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, (str, Path) if kind is Path else kind)


def fields_of(settings: type) -> dict[str, Field]:
    """The fields of a dataclass by name, in its order, but for those of types that no option could give."""
    return _fields_of(cast(Hashable, settings))


@functools.cache
def _fields_of(settings: Any) -> dict[str, Field]:
    hints, docs = get_type_hints(settings, include_extras=True), docstrings(settings)
    by_name = {}
    for field in dataclasses.fields(settings):
        type_ = _taken_apart(hints[field.name])
        if type_["kind"] not in EXPECTED:
            continue
        text, if_none = _split_help(docs.get(field.name, ""))
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        by_name[field.name] = Field(name=field.name, **type_, default=default, help=text, if_none=if_none)
    return by_name


def check(settings: Any) -> None:
    """Raises `RequestError` for a field of this dataclass whose value does not fit: call it in `__post_init__`.

    A string that stands for a path becomes a `Path`; heads become a tuple of numbers or of names.
    """
    for name, field in fields_of(type(settings)).items():
        value = getattr(settings, name)
        if (expected := field.mismatch(value)) is not None:
            raise RequestError(f"{name} is {value!r}: it must be {expected}")
        if field.kind is Path and not field.several and isinstance(value, str):
            object.__setattr__(settings, name, Path(value))  # the dataclass is frozen, and not yet anybody's
        elif field.kind is ByName and value is not None:
            object.__setattr__(settings, name, normal(value))  # the same


def docstrings(settings: type) -> dict[str, str]:
    """The docstring under each field of a class and of the classes it inherits from, as one line; empty without source."""
    texts: dict[str, str] = {}
    for owner in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except (OSError, TypeError):
            continue
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            match (field, after):
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _split_help(docstring: str) -> tuple[str, str | None]:
    """`Layers to fit. None: all.` -> (`Layers to fit.`, `all`)."""
    match = re.fullmatch(r"(.*?)\s*\bNone: (.*?)\.?", docstring)
    return (match[1], match[2]) if match else (docstring, None)


def _taken_apart(hint: Any) -> dict[str, Any]:
    """What an annotation says, as `Field` has it."""
    described: dict[str, Any] = {
        "others": (),
        "several": False,
        "optional": False,
        "choices": (),
        "bounds": {},
    }
    while (origin := get_origin(hint)) is not None:
        parts = get_args(hint)
        if origin is Annotated:
            hint, *limits = parts
            if ByName in limits:
                hint = ByName
                continue
            bounds = [(name, getattr(limit, name, None)) for limit in limits for name in BOUNDS]
            described["bounds"] = {name: bound for name, bound in bounds if bound is not None}
        elif origin in (Union, UnionType):
            described["optional"] = NoneType in parts
            hint, *others = (part for part in parts if part is not NoneType)
            described["others"] = tuple(others)
        elif origin is Literal:
            described["choices"], hint = parts, str
        elif origin is tuple and parts[1:] == (...,):
            described["several"], hint = True, parts[0]
        else:
            hint = origin
    return {**described, "kind": hint}


def _wrong_heads(value: Any) -> str | None:
    """What heads should be; None where they are."""
    try:
        normal(value)
    except ValueError as error:
        return str(error)
    return None


def _power(bound: float) -> str:
    """`2^63` for large powers of two."""
    if bound >= 2**31 and math.frexp(bound)[0] == 0.5:
        return f"2^{math.frexp(bound)[1] - 1}"
    return str(int(bound)) if bound == int(bound) else str(bound)
