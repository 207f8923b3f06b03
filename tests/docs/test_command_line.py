"""docs/command-line.md is what the commands say; every command and flag in the docs exists."""

import re
from pathlib import Path

import click
import pytest

from alens.cli import COMMANDS, group
from alens.cli.reference import EXIT_CODES, reference

from . import pages

OTHER_TOOLS = {
    "--include": "hf download",
    "--repo-type": "hf download",
    "--local-dir": "hf download",
    "--nproc-per-node": "torchrun",
    "--start-method": "torchrun",
    "--strict": "mypy",
    "--upgrade": "pip",
    "--rounds": "tests.fuzz.by_hand",
    "--inplace": "jupyter",
    "--export": "sbatch",
    "--nodes": "sbatch",
    "--ntasks": "sbatch",
    "--ntasks-per-node": "sbatch",
    "--gpus-per-node": "sbatch",
    "--gpu-bind": "srun",
    "--tres-per-task": "srun",
    "--cc": "flux submit",
    "--signal": "flux submit",
    "--nv": "apptainer",
    "--build-arg": "apptainer build",
    "--index-url": "pip",
    "--env": "sky jobs launch",
    "--secret": "sky jobs launch",
    "--resolution": "uv pip",
    "--python": "uv pip",
}
"""Flags of other programs that the docs name."""

BENCHMARKS = "".join(path.read_text() for path in sorted((pages.ROOT / "benchmarks").glob("*.py")))
BENCHMARK_FLAGS = set(re.findall(r'"(--[a-z-]+)"', BENCHMARKS))
"""Flags of the benchmarks, which docs/benchmarks.md and the decisions name."""


def command_of(name: str) -> tuple[click.Command, click.Context]:
    parent = click.Context(group, info_name="alens", **group.context_settings)
    command = group.get_command(parent, name)
    assert command is not None, name
    return command, parent


def flags_of(name: str) -> set[str]:
    command, parent = command_of(name)
    context = click.Context(command, parent=parent)
    names = (name for param in command.get_params(context) for name in (*param.opts, *param.secondary_opts))
    return {name for name in names if name.startswith("-")}


FLAGS = {flag for name in COMMANDS for flag in flags_of(name)} | {"--version"}


def test_the_page_is_what_the_commands_say() -> None:
    page = (pages.ROOT / "docs" / "command-line.md").read_text()
    assert page == reference(), "docs/command-line.md is not what the help texts say: run `make docs`"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_section_with_its_options_and_an_example(name: str) -> None:
    section = reference().split(f"\n## alens {name}\n")[1].split("\n## ")[0]
    for flag in flags_of(name) - {"-h", "--help"}:
        assert re.search(rf"^\| `(--?[\w-]+(, | / ))*{flag}[ `,]", section, re.MULTILINE), flag
    assert f"\nalens {name} " in section.split("Example:")[1]


def test_the_reference_gives_the_exit_codes() -> None:
    head = reference().split("\n## alens ")[0]
    for code in EXIT_CODES:
        assert f"| {code} |" in head
    assert {0, 1, 2, 75} <= EXIT_CODES.keys()


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_commands_on_a_page_are_valid(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed as the command line would parse them, in the page's own directory; nothing is run."""
    monkeypatch.chdir(page.parent if page.parent.name.endswith("_jobs") else pages.ROOT)
    for name, *arguments in pages.alens_commands(page):
        command, parent = command_of(name)
        command.make_context(name, arguments, parent=parent)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_flags_on_a_page_exist(page: Path) -> None:
    quoted = " ".join(re.findall(r"`([^`\n]+)`", pages.prose(page)))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", quoted))
    about_benchmarks = (
        page.name in ("benchmarks.md", "heads.md", "limits.md", "scale.md") or page.parent.name == "decisions"
    )
    known = FLAGS | OTHER_TOOLS.keys() | (BENCHMARK_FLAGS if about_benchmarks else set())
    assert named <= known, f"{page.name} names flags that do not exist"


def test_the_readme_shows_what_the_pages_need() -> None:
    """The tests above see commands at all."""
    shown = [arguments[0] for arguments in pages.alens_commands(pages.ROOT / "README.md")]
    assert set(shown) == set(COMMANDS)
