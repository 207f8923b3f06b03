"""Options of a command, made from a settings class: what a setting is stands once, in the class.

In: a frozen dataclass, and what only the command line knows: other names of a flag, a metavar. Out: an option for each
field, with its name, type, choices, bounds and default; its help is the docstring under the field. A last sentence
`None: all.` of that docstring is shown as `[default: all]`.

    FIT = SettingsOptions(FitSettings, layers=Flag("--layers", "--layer"))

    @click.command("fit")
    @FIT
    def command(**given):
        settings = FitSettings(**FIT.values(given))
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import click

from alens.cli.parameters import NAMES, NUMBERS, OPTIONS, REALS, PathName
from alens.fields import NO_DEFAULT, Field, fields_of

Command = Callable[..., Any]
LISTS: dict[type, click.ParamType[Any]] = {int: NUMBERS, float: REALS, str: NAMES}


class Flag:
    """What only the command line says about a setting."""

    def __init__(self, *names: str, **more: Any) -> None:
        """`names` as click takes them, where they are not just the name of the field; `more` is for `click.Option`."""
        self.names, self.more = names, more


LAYERS = Flag("--layers", "--layer")
HEADS = Flag("--heads", "--head")


class SettingsOptions:
    """A decorator that adds an option for each field of a settings class, in their order."""

    def __init__(
        self,
        settings: type,
        *,
        only: Collection[str] = (),
        without: Collection[str] = (),
        ranges: bool = True,
        **flags: Flag,
    ) -> None:
        """`only` and `without` choose among the fields. Where `ranges` is false, a number out of bounds is left to the
        class to refuse. `flags` go by the names of fields.
        """
        fields = fields_of(settings)
        assert fields.keys() >= {*only, *without, *flags}, f"{settings.__name__} has no such fields"
        self._fields = [
            (field, flags.get(name, Flag()))
            for name, field in fields.items()
            if name in (only or fields) and name not in without
        ]
        self._ranges = ranges

    def __call__(self, command: Command) -> Command:
        for field, flag in reversed(self._fields):
            command = click.option(*_names(field, flag), **{**self._told(field), **flag.more})(command)
        return command

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given for these fields, by their names."""
        found = {}
        for field, flag in self._fields:
            value = given[str(click.Option(_names(field, flag)).name)]
            found[field.name] = dict(value) if field.kind is dict else value
        return found

    def _told(self, field: Field) -> dict[str, Any]:
        """What the field says of its option, as `click.option` takes it."""
        told: dict[str, Any] = {"help": _help(field)}
        if field.kind is bool:
            return {**told, "is_flag": True}
        if field.kind is dict:
            return {**told, "type": OPTIONS, "multiple": True}
        told["type"] = _type(field, self._ranges)
        if field.default is NO_DEFAULT:
            return {**told, "required": True}
        if field.default is None:
            return told
        default = (
            ",".join(f"{part:g}" if field.kind is float else str(part) for part in field.default)
            if field.several
            else field.default
        )
        return {**told, "default": default, "show_default": True}


def _names(field: Field, flag: Flag) -> tuple[str, ...]:
    return flag.names or (f"--{field.name.replace('_', '-')}",)


def _help(field: Field) -> str:
    return field.help if field.if_none is None else f"{field.help}  [default: {field.if_none}]"


def _type(field: Field, ranges: bool) -> Any:
    if field.several:
        return LISTS[field.kind]
    if field.choices:
        return click.Choice(field.choices)
    if field.kind is Path:
        return PathName()
    if field.bounds and ranges:
        low, high = ("ge", "gt"), ("le", "lt")
        kind: Any = click.IntRange if field.kind is int else click.FloatRange
        return kind(
            min=next((field.bounds[name] for name in low if name in field.bounds), None),
            max=next((field.bounds[name] for name in high if name in field.bounds), None),
            min_open="gt" in field.bounds,
            max_open="lt" in field.bounds,
        )
    return field.kind
