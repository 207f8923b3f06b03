"""`--config FILE.toml`: options and arguments of a command from a file.

In: a TOML file whose keys are names of options or arguments. Out: the defaults of the command, which its options
override.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from alens.cli.value_types import PathName
from alens.errors import RequestError
from alens.fields import EXPECTED, has_type

TYPES = {click.types.IntParamType: int, click.types.FloatParamType: float, click.types.BoolParamType: bool}
"""Types of click that change a value without a word: 2.5 to 2, true to 1, "yes" to true."""


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--config FILE.toml`."""
    return click.option(
        "--config",
        type=PathName(dir_okay=False),
        callback=_read,
        is_eager=True,
        expose_value=False,
        metavar="FILE.toml",
        help="Read options from a TOML file; options on the command line override it.",
    )(command)


def _read(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Makes the values of the file the defaults of the command."""
    if path is None:
        return None
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not a TOML file: {error}") from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    parameters = [parameter for parameter in ctx.command.params if parameter.name not in ("config", "help")]
    by_key = {key: parameter for parameter in parameters for key in _keys(parameter)}
    defaults = {}
    for key, value in given.items():
        parameter = by_key.get(key.replace("_", "-"))
        if parameter is None:
            valid = sorted(_keys(parameter)[0] for parameter in parameters)
            raise RequestError(f"{path} has the unknown key {key!r}: valid keys are {', '.join(valid)}")
        _check_type(parameter, key, value, path)
        defaults[parameter.name] = list(value.items()) if isinstance(value, dict) else value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def _keys(parameter: click.Parameter) -> list[str]:
    """What a file may call a parameter: its options without the dashes, the longest first, or the argument's name."""
    return [name.removeprefix("--").lower() for name in sorted(parameter.opts, key=len, reverse=True)]


def _check_type(parameter: click.Parameter, key: str, value: Any, path: Path) -> None:
    """Raises `RequestError` for a value of another type; a number may be text, as on the command line."""
    for click_type, kind in TYPES.items():
        if isinstance(parameter.type, click_type):
            for part in value if isinstance(value, list) else [value]:
                as_text = isinstance(part, str) and kind is not bool
                if not (as_text or has_type(kind, part)):
                    raise RequestError(f"{path} gives {key} the value {value!r}: it must be {EXPECTED[kind]}")
