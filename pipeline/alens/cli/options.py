"""Options of commands: those made from a settings class, and those that several commands share.

A setting stands once, in its class: name, type, choices, bounds and default in its annotation, its help in the docstring
under it. A last sentence `None: all.` of that docstring is shown as `[default: all]`. The command adds what only the
command line knows: another name of a flag, a metavar.

    FIT = SettingsOptions(FitSettings, layers=Flag("--layers", "--layer"))

    @click.command("fit")
    @FIT
    def command(**given):
        settings = FitSettings(**FIT.values(given))
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, get_args

import click

from alens.cli.value_types import HEAD_LIST, NAMES, NUMBERS, OPTIONS, REALS, PathName, not_empty
from alens.fields import NO_DEFAULT, Field, fields_of
from alens.heads import ByName
from alens.reading.settings import Role
from alens.store.stage_settings import StageSettings

Command = Callable[..., Any]
LISTS: dict[type, click.ParamType[Any]] = {int: NUMBERS, float: REALS, str: NAMES}


class Flag:
    """What only the command line says about a setting."""

    def __init__(self, *names: str, **more: Any) -> None:
        """`names` are as click takes them, and are left out where the name of the field says it all; `more` is for
        `click.option`.
        """
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
        """`only` and `without` choose among the fields; `flags` go by the names of fields. Where `ranges` is false, a
        number out of bounds is left to the class to refuse.
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
            command = click.option(*_names(field, flag), **{**self._attributes(field), **flag.more})(command)
        return command

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given for these fields, by their names."""
        values = {}
        for field, flag in self._fields:
            value = given[str(click.Option(_names(field, flag)).name)]
            values[field.name] = dict(value) if field.kind is dict else value
        return values

    def _attributes(self, field: Field) -> dict[str, Any]:
        """What the field says about its option, as `click.option` takes it."""
        attributes: dict[str, Any] = {"help": _help(field)}
        if field.kind is bool:
            return {**attributes, "is_flag": True, **({"default": None} if field.optional else {})}
        if field.kind is dict:
            return {**attributes, "type": OPTIONS, "multiple": True}
        if field.several and field.kind is Path:
            # Once for each: the name of a file may hold a comma.
            return {**attributes, "type": PathName(), "multiple": True}
        attributes["type"] = _type(field, self._ranges)
        if field.default is NO_DEFAULT:
            return {**attributes, "required": True}
        if field.default is None:
            return attributes
        return {**attributes, "default": _default(field), "show_default": True}


def _names(field: Field, flag: Flag) -> tuple[str, ...]:
    if flag.names:
        return flag.names
    name = field.name.replace("_", "-")
    # A switch that may also be left to something else says both.
    return (f"--{name}/--no-{name}",) if field.kind is bool and field.optional else (f"--{name}",)


def _help(field: Field) -> str:
    return field.help if field.if_none is None else f"{field.help}  [default: {field.if_none}]"


def _default(field: Field) -> Any:
    """The default; a list as one writes it on the command line."""
    if not field.several:
        return field.default
    return ",".join(f"{part:g}" if field.kind is float else str(part) for part in field.default)


def _type(field: Field, ranges: bool) -> Any:
    if field.kind is ByName:
        return HEAD_LIST
    if field.several:
        return LISTS[field.kind]
    if field.choices:
        return click.Choice(field.choices)
    if field.kind is Path:
        return PathName()
    if not (field.bounds and ranges):
        return field.kind
    range_type: Any = click.IntRange if field.kind is int else click.FloatRange
    return range_type(
        min=field.bounds.get("ge", field.bounds.get("gt")),
        max=field.bounds.get("le", field.bounds.get("lt")),
        min_open="gt" in field.bounds,
        max_open="lt" in field.bounds,
    )


# Options that several commands share


def layers_option(verb: str) -> Command:
    """Adds `--layers`, also as `--layer`: which of the fitted layers to `verb`."""
    text = f"Layers to {verb}.  [default: all that were fitted]"
    return click.option(*LAYERS.names, type=NUMBERS, help=text)


def heads_option(verb: str) -> Command:
    """Adds `--heads`, also as `--head`: which of the fitted heads to `verb`."""
    text = f"Heads to {verb}: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5.  [default: all that were fitted]"
    return click.option(*HEADS.names, type=HEAD_LIST, help=text)


def heat_map_option(picture: str, *, multiple: bool = False) -> Command:
    """Adds `--heat-map`: where to draw `picture`."""
    return click.option(
        "--heat-map",
        type=PathName(),
        metavar="FILE.png|FILE.html",
        multiple=multiple,
        help=f"Draw {picture}.",
    )


def device_option(command: Command) -> Command:
    """Adds `--device`."""
    text = "auto, cpu, cuda or cuda:N."
    return click.option("--device", default="auto", show_default=True, help=text)(command)


STAGE = SettingsOptions(StageSettings, stage=Flag(metavar="DIR"))
"""Adds `--stage` and `--stage-gib`, for commands that read much of a cache."""


def model_options(command: Command) -> Command:
    """Adds `--model` and `--device`: for commands that run the lenses' model."""
    text = "Where the model is, if it is not where the lenses say."
    return click.option("--model", callback=not_empty, help=text)(device_option(command))


def store_of_fit_option(command: Command) -> Command:
    """Adds `--store`, for commands that show what heads write."""
    text = (
        "The cache of the fit, for lenses that do not hold the mean z of their heads, from which what these write is "
        "counted: those of an earlier alens, and imported ones."
    )
    return click.option("--store", type=PathName(), metavar="STORE", help=text)(command)


def chat_option(command: Command) -> Command:
    """Adds `--chat`, for commands whose prompts are arguments."""
    text = (
        "A file of conversations: a list of messages with `role` and `content`, or several such lists. Each is a prompt, as the "
        "chat template of the model writes it. Repeatable."
    )
    return click.option("--chat", multiple=True, type=PathName(), metavar="FILE.json", help=text)(command)


def role_option(command: Command) -> Command:
    """Adds `--role`, for commands that take prompts."""
    text = "Take each plain prompt for a message of this role, and apply the chat template of the model.  [default: plain text]"
    return click.option("--role", type=click.Choice(get_args(Role)), help=text)(command)


def effect_option(command: Command) -> Command:
    """Adds `--effect`, for commands that take heads by a reading."""
    text = "Effect lenses of the same model (`alens fit --lens effect`), for --by effect; heads without one are left out."
    return click.option("--effect", type=PathName(), metavar="LENSES", help=text)(command)


def worker_option(command: Command) -> Command:
    """Adds `--worker`."""
    text = "This job's share of the work: the I-th (from 0) of N."
    return click.option("--worker", default="0/1", show_default=True, metavar="I/N", help=text)(command)


def max_minutes_option(command: Command) -> Command:
    """Adds `--max-minutes`."""
    minutes = click.FloatRange(min=0, min_open=True)
    text = "Save and stop after this many minutes (exit code 75)."
    return click.option("--max-minutes", type=minutes, help=text)(command)


def json_option(command: Command) -> Command:
    """Adds `--json`, as `as_json`."""
    text = "Print one JSON document on standard output."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)
