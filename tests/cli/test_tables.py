"""Tables in a narrow terminal, in a wide one and in a log: no number is cut, whatever the width."""

import re
from pathlib import Path

import pytest

from alens.cli import tables
from alens.pictures.head_grid import HeadGrid
from alens.pictures.numbers import signed

ROWS = [("0.0", ("1.234", "±0.100"), "some words that may be folded"), ("11.10!", ("0.500", "±0.010"), "few")]
HEADINGS = ("head", "KL", "tokens")


def drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    tables.show_table(HEADINGS, ROWS, title="a title", text=("tokens",))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_parts_stand_side_by_side_where_there_is_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = drawn(capsys, monkeypatch, 80)
    assert lines[0] == "a title"
    assert lines[1] == "  head            KL  tokens"
    assert lines[3] == "   0.0  1.234 ±0.100  some words that may be folded"
    assert lines[4] == "11.10!  0.500 ±0.010  few"


def test_parts_are_stacked_where_there_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = drawn(capsys, monkeypatch, 45)
    assert lines[3:5] == ["   0.0   1.234  some words that may be folded", "        ±0.100"]


@pytest.mark.parametrize("columns", [20, 30, 40, 60, 100])
def test_numbers_are_whole_at_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    text = "\n".join(drawn(capsys, monkeypatch, columns))
    for number in ("0.0", "11.10!", "1.234", "±0.100", "0.500", "±0.010"):
        assert number in text
    assert "…" not in text


def test_headings_are_bold_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """rich's own styles reach the terminal, and those in a cell do not."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    tables.show_table(("head", "KL"), [("\x1b[31m0.0", "1")])
    shown = capsys.readouterr().out
    assert "\x1b[1m   head\x1b[0m" in shown
    assert r"\x1b[31m0.0" in shown and "\x1b[31m" not in shown


def test_a_log_is_wide_enough_for_most_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    assert tables.console().width == tables.LOG_WIDTH


def test_rows_below_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show_table(("head", "KL"), [("0.0", "1")], foot=[("all", "2")])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line][-1] == "all   2" and "" in lines[2:-2]


def test_a_grid_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    grid = HeadGrid(
        title="gain",
        number_title="nats",
        values={(0, 1): 0.25, (11, 1): -0.5, (11, 10): 0.0},
        marked={(0, 1)},
        silent={(11, 10)},
    )
    tables.show_grid(grid, signed)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["gain"] and lines[1] == ["layer", "\\", "head", "1", "10"]
    assert lines[3:5] == [["0", "+0.250*"], ["11", "-0.500", "+0.000!"]]


def test_tables_are_made_here_alone() -> None:
    rooms = Path(tables.__file__).parents[1]
    makers = [path.name for path in rooms.rglob("*.py") if "rich.table" in path.read_text()]
    assert makers == ["tables.py"]


@pytest.mark.parametrize("width", [40, 120])
def test_all_pieces_are_shown_in_lines_that_split_none(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    words = [f"' t{number}' 1%" for number in range(9)]
    tables.show_table(("head", "next tokens"), [("1.2", tables.AllPieces(words))], text=("next tokens",))
    tables.show_pieces("as it is:", words)
    out = capsys.readouterr().out
    assert all(out.count(word) == 2 for word in words)
    assert max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize("columns", range(48, 70, 3))
def test_pieces_are_whole_and_share_the_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    pieces = [tables.Pieces([f"' t{n}'" for n in range(start, start + 9)]) for start in (0, 100)]
    tables.show_table(("head", "KL", "up", "down"), [("0.0", "1.5", *pieces)], text=("up", "down"))
    line = capsys.readouterr().out.splitlines()[2]
    assert columns - 16 < len(line) <= columns and "..." not in line
    assert len(re.findall(r"' t\d+'", line)) * 2 == line.count("'") >= 10
    tables.show_pieces("lead:", [f"' t{n}' 1%" for n in range(20)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns and all(line.rstrip(",").endswith("1%") for line in lines)
