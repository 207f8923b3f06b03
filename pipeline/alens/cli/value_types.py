"""Types of options and arguments, as click takes them: lists of numbers, heads and names, `name=value`, paths.

In: text from the command line, or a value of a TOML file. Out: a tuple, a pair or a `Path`; what does not fit is refused
with an example of what would.
"""

import json
from pathlib import Path
from typing import Any

import click

from alens.heads import MOST_NUMBERS, normal

Parameter = click.Parameter | None
Context = click.Context | None


class Numbers(click.ParamType[tuple[int, ...]]):
    """`0,2,5-7` -> (0, 2, 5, 6, 7)."""

    name = "numbers"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[int, ...]:
        numbers: list[int] = []
        try:
            if isinstance(value, (list, tuple)):
                if not all(type(part) is int and 0 <= part < 2**63 for part in value):
                    raise ValueError
                return tuple(value)
            for part in str(value).split(","):
                first, dash, last = part.strip().partition("-")
                stretch = range(int(first), int(last if dash else first) + 1)
                if not 0 < len(stretch) <= MOST_NUMBERS:
                    raise ValueError
                numbers += stretch
        except (ValueError, TypeError, OverflowError):
            self.fail(f"{value!r} is not a list of numbers such as 0,2,5-7", param, ctx)
        return tuple(numbers)


class HeadList(click.ParamType[tuple[int, ...] | tuple[str, ...]]):
    """`0,3-5` -> (0, 3, 4, 5); `18.6,17.3-5` -> ("18.6", "17.3", "17.4", "17.5")."""

    name = "heads"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[int, ...] | tuple[str, ...]:
        try:
            return normal([value] if type(value) is int else value)
        except ValueError as error:
            self.fail(f"{value!r} must be {error}", param, ctx)


class Reals(click.ParamType[tuple[float, ...]]):
    """`-2,0,0.5` -> (-2.0, 0.0, 0.5)."""

    name = "reals"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in _parts(value))
        except (ValueError, TypeError):
            self.fail(f"{value!r} is not a list of numbers such as -2,0,0.5", param, ctx)


class Names(click.ParamType[tuple[str, ...]]):
    """`resid_post,mlp_out` -> ("resid_post", "mlp_out")."""

    name = "names"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[str, ...]:
        return tuple(str(part).strip() for part in _parts(value))


class Option(click.ParamType[tuple[str, Any]]):
    """`rank=8` -> ("rank", 8): a name, and a value as JSON has it, or else a string."""

    name = "name=value"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return str(value[0]), value[1]
        option, equals, text = str(value).partition("=")
        if not equals or not option.strip().isidentifier():
            self.fail(f"{value!r} is not of the form name=value", param, ctx)
        try:
            return option.strip(), json.loads(text)
        except ValueError:
            return option.strip(), text


NUMBERS, HEAD_LIST, REALS, NAMES, OPTIONS = Numbers(), HeadList(), Reals(), Names(), Option()


class PathName(click.Path):
    """A path. An empty one, from a variable of a job script that is not set, must not mean the current directory."""

    def __init__(self, **checks: bool) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        if value == "":
            self.fail("it is empty: name a path", param, ctx)
        return super().convert(value, param, ctx)


def not_empty(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A callback: a variable of a job script that is not set must not mean the default."""
    if value is not None and not value.strip():
        left_out = "" if parameter.required else ", or leave the option out"
        raise click.BadParameter(f"it is empty: name one{left_out}", ctx, parameter)
    return value


def _parts(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else str(value).split(",")
