"""What several commands share: `--config FILE.toml`, lists of numbers and names, `--json`."""

import contextlib
import dataclasses
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from alens.cli.console import show_json
from alens.errors import RequestError
from alens.fields import EXPECTED, has_type

MOST_NUMBERS = 10_000
"""Of a range: more than layers, heads or jobs anywhere, and few enough to hold."""


class Numbers(click.ParamType[tuple[int, ...]]):
    """`0,2,5-7` -> (0, 2, 5, 6, 7)."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        found: list[int] = []
        try:
            if isinstance(value, (list, tuple)):
                if not all(type(part) is int and 0 <= part < 2**63 for part in value):
                    raise ValueError
                return tuple(value)
            for part in str(value).split(","):
                first, dash, last = part.strip().partition("-")
                numbers = range(int(first), int(last if dash else first) + 1)
                if not 0 < len(numbers) <= MOST_NUMBERS:
                    raise ValueError
                found += numbers
        except (ValueError, TypeError, OverflowError):
            self.fail(f"{value!r} is not a list of numbers such as 0,2,5-7", param, ctx)
        return tuple(found)


NUMBERS = Numbers()


class Reals(click.ParamType[tuple[float, ...]]):
    """`-2,0,0.5` -> (-2.0, 0.0, 0.5)."""

    name = "reals"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        try:
            return tuple(float(part) for part in parts)
        except (ValueError, TypeError):
            self.fail(f"{value!r} is not a list of numbers such as -2,0,0.5", param, ctx)


REALS = Reals()


class Names(click.ParamType[tuple[str, ...]]):
    """`resid_post,mlp_out` -> ("resid_post", "mlp_out")."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return tuple(str(part).strip() for part in parts)


NAMES = Names()


class Option(click.ParamType[tuple[str, Any]]):
    """`rank=8` -> ("rank", 8): a name, and a value as JSON has it, or else a string."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return str(value[0]), value[1]
        option, equals, text = str(value).partition("=")
        if not equals or not option.strip().isidentifier():
            self.fail(f"{value!r} is not of the form name=value", param, ctx)
        try:
            return option.strip(), json.loads(text)
        except ValueError:
            return option.strip(), text


OPTIONS = Option()


class PathName(click.Path):
    """A path. An empty one, of a variable of a job script that is not set, must not mean the current directory."""

    def __init__(self, **checks: bool) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty: name a path", param, ctx)
        return super().convert(value, param, ctx)


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Makes the file's values the defaults of the command: a flag beats the file."""
    if path is None:
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is no TOML file: {error}") from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    parameters = [p for p in ctx.command.params if p.name not in ("config", "help")]
    names = {key: p.name for p in parameters for key in _keys(p)}
    for key in found:
        if key.replace("_", "-") not in names:
            valid = sorted(_keys(p)[0] for p in parameters)
            raise RequestError(f"{path} has the unknown key {key!r}: valid keys are {', '.join(valid)}")
    kinds = {p.name: p for p in parameters}
    for key, value in found.items():
        _check_kind(kinds[names[key.replace("_", "-")]], key, value, path)
    ours = {
        names[key.replace("_", "-")]: list(value.items()) if isinstance(value, dict) else value
        for key, value in found.items()
    }
    ctx.default_map = {**(ctx.default_map or {}), **ours}
    return path


def _check_kind(parameter: click.Parameter, key: str, value: Any, path: Path) -> None:
    """Raises `RequestError` for what click would change without a word: 2.5 to 2, true to 1, "yes" to true."""
    kinds = {
        click.types.IntParamType: int,
        click.types.FloatParamType: float,
        click.types.BoolParamType: bool,
    }
    for of_click, kind in kinds.items():
        if isinstance(parameter.type, of_click):
            for part in value if isinstance(value, list) else [value]:
                as_text = isinstance(part, str) and kind is not bool  # "3", as on the command line
                if not (as_text or has_type(kind, part)):
                    raise RequestError(f"{path} gives {key} the value {value!r}: it must be {EXPECTED[kind]}")


def _keys(parameter: click.Parameter) -> list[str]:
    """What a file may call a parameter: its options without the dashes, the longest first, or the argument's name."""
    return [name.removeprefix("--").lower() for name in sorted(parameter.opts, key=len, reverse=True)]


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--config FILE.toml`."""
    return click.option(
        "--config",
        type=PathName(dir_okay=False),
        callback=_read_config,
        is_eager=True,
        expose_value=False,
        metavar="FILE.toml",
        help="Read options from a TOML file; a flag beats the file.",
    )(command)


def worker_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--worker`."""
    return click.option(
        "--worker",
        default="0/1",
        show_default=True,
        metavar="I/N",
        help="This job's share of the work: the I-th (from 0) of N.",
    )(command)


def max_minutes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--max-minutes`."""
    return click.option(
        "--max-minutes",
        type=click.FloatRange(min=0, min_open=True),
        help="Save and stop after so many minutes (exit code 75).",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--json`, as `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on standard output."
    )(command)


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--device`."""
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")(
        command
    )


def layers_option(verb: str, default: str = "all that were fitted") -> Callable[..., Any]:
    """Adds `--layers`, also as `--layer`: which layers to `verb`; None means what `default` says."""
    return click.option(
        "--layers",
        "--layer",
        "layers",
        type=NUMBERS,
        help=f"Layers to {verb}.  [default: {default}]",
    )


def heads_option(verb: str) -> Callable[..., Any]:
    """Adds `--heads`, also as `--head`: which of the fitted heads of each layer to `verb`."""
    return click.option(
        "--heads",
        "--head",
        "heads",
        type=NUMBERS,
        help=f"Heads to {verb}, in each layer.  [default: all that were fitted]",
    )


def seed_option(of: str) -> Callable[..., Any]:
    """Adds `--seed`."""
    return click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=of)


def heat_map_option(what: str, **more: Any) -> Callable[..., Any]:
    """Adds `--heat-map`, for a picture of `what`; `more` is for click."""
    return click.option(
        "--heat-map",
        type=PathName(),
        metavar="FILE.png|FILE.html",
        help=f"Draw {what}.",
        **{"multiple": False, **more},
    )


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--model` and `--device`: for commands that run the lenses' model."""
    return click.option(
        "--model", callback=not_empty, help="Where the model is, when it is not where the lenses say."
    )(device_option(command))


def not_empty(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A variable of a job script that is not set must not mean the default."""
    if value is not None and not value.strip():
        left_out = "" if parameter.required else ", or leave the option out"
        raise click.BadParameter(f"it is empty: name one{left_out}", ctx, parameter)
    return value


def chosen(settings: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given for the fields of a settings class; parameters and fields have the same names."""
    return {field.name: given[field.name] for field in dataclasses.fields(settings) if field.name in given}


@contextlib.contextmanager
def printed(found: Any, show: Callable[[], None], *, as_json: bool) -> Iterator[None]:
    """Prints a result once the block has written its files: as JSON, or by `show`.

    It is printed in any case: a full disk takes the files alone.
    """
    try:
        yield
    finally:
        if as_json:
            show_json(found.to_json())
        else:
            show()
