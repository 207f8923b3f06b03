"""Options are made from settings classes: what a setting is stands once."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from annotated_types import Ge, Gt, Le
from click.testing import CliRunner

from alens.cli import group
from alens.cli.options import LAYERS, Flag, SettingsOptions
from alens.fit.objectives import OBJECTIVES
from alens.lens.designs import DESIGNS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    store: Path
    """A cache."""
    layers: tuple[int, ...] | None = None
    """Layers to take. None: all."""
    rows: Annotated[int, Ge(1), Le(9)] = 4
    """Rows."""
    rate: Annotated[float, Gt(0)] | None = None
    """A rate."""
    dtype: Literal["float16", "int8"] = "float16"
    """Stored as."""
    more: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further ones."""
    exact: bool = False
    """Exact."""
    revision: str | None = None
    """A commit."""
    figures: tuple[Path, ...] = ()
    """Files."""


EXAMPLE = SettingsOptions(
    Example,
    layers=LAYERS,
    rate=Flag(metavar="RATE"),
    more=Flag("--one-more", "more"),
    revision=Flag("--commit"),
)


@click.command()
@EXAMPLE
def example(**given: Any) -> None:
    click.echo(repr(Example(**EXAMPLE.values(given))))


def run(*arguments: str) -> str:
    return CliRunner().invoke(example, ["--store", "x", *arguments]).output


def test_what_is_given_becomes_the_settings() -> None:
    assert run() == f"{Example(store=Path('x'))}\n"
    told = [
        "--layer",
        "0,2",
        "--rows",
        "9",
        "--rate",
        ".5",
        "--dtype",
        "int8",
        "--one-more",
        "rank=8",
        "--one-more",
        "a=b",
        "--exact",
        "--commit",
        "c",
        "--figures",
        "a,b.png",
        "--figures",
        "c.png",
    ]
    settings = Example(
        store=Path("x"), layers=(0, 2), rows=9, rate=0.5, dtype="int8", more={"rank": 8, "a": "b"}, exact=True, revision="c",
        figures=(Path("a,b.png"), Path("c.png")),
    )  # fmt: skip
    assert run(*told) == f"{settings}\n"


def test_help_is_the_docstring() -> None:
    options = {name: option for option in example.params for name in option.opts}
    assert options["--layers"].help == "Layers to take.  [default: all]"
    shown = run("--help")
    for part in (
        "[default: 4; 1<=x<=9]",
        "--rate RATE ",
        "[x>0]",
        "[default: float16]",
        "[float16|int8]",
        "[required]",
    ):
        assert part in shown


@pytest.mark.parametrize("argument", ["--rows=10", "--rate=0", "--dtype=int4", "--layers=a", "--one-more=x"])
def test_what_does_not_fit_is_refused(argument: str) -> None:
    assert "Invalid value for" in run(argument)


def test_bounds_can_be_left_to_the_class() -> None:
    command = SettingsOptions(Example, only=("rows",), ranges=False)(lambda **_: None)
    [option] = command.__click_params__
    assert type(option.type) is click.types.IntParamType


def test_a_flag_of_no_field_is_refused() -> None:
    with pytest.raises(AssertionError, match="Example has no such fields"):
        SettingsOptions(Example, colour=Flag())


def test_the_help_of_fit_names_every_design_and_objective() -> None:
    command = group.get_command(click.Context(group), "fit")
    assert command is not None
    helps = {option.name: option.help for option in command.params if isinstance(option, click.Option)}
    assert all(name in str(helps["lens"]) for name in DESIGNS)
    assert all(name in str(helps["objective"]) for name in OBJECTIVES)
