"""The short table of a result in a notebook: a few rows, and no text of it is HTML."""

import re
from html.parser import HTMLParser

from alens.short_table import MOST_COLUMNS, MOST_ROWS, short_table


class Cells(HTMLParser):
    """The texts of the cells of a table, row by row, and the elements that stand anywhere in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.elements: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_values_are_shown_as_people_read_them() -> None:
    rows = [
        {"layer": 18, "head": 6, "nothing": False, "kl": 1 / 3, "at.low": 0.25, "at.high": 0.5, "rows": 12345, "z": None},
        {"layer": 2, "head": 0, "nothing": True, "kl": 1.2e-7, "at.low": None, "at.high": None, "rows": None, "z": None},
    ]  # fmt: skip
    assert Cells(short_table("two heads", rows)).rows == [
        ["head", "nothing", "kl", "at", "rows"],
        ["18.6", "", "0.3333", "0.25 to 0.5", "12,345"],
        ["2.0", "yes", "1.2e-07", "", ""],
    ]


def test_a_pair_of_heads_has_a_column_each() -> None:
    row = {"source_layer": 1, "source_head": 2, "target_layer": 3, "target_head": 4}
    assert Cells(short_table("", [row])).rows[1] == ["1.2", "3.4"]


def test_tokens_of_a_list_show_their_spaces() -> None:
    rows = [{"lens": [" him", "\n", "a", "b", "left out"], "nested": [{"token": "x"}]}]
    assert Cells(short_table("", rows)).rows == [["lens"], ["\u2423him \\n a b"]]


def test_it_is_short_and_says_what_is_left_out() -> None:
    rows = [{f"c{column}": row for column in range(MOST_COLUMNS + 2)} for row in range(1, 5001)]
    text = short_table("", rows)
    shown = Cells(text).rows
    assert len(shown) == 1 + MOST_ROWS and len(shown[0]) == MOST_COLUMNS
    assert "<p>4,990 more rows and 2 more columns: to_frame() has all</p>" in text
    assert "more" not in short_table("", [{"a": 1}])
    assert short_table("nothing", []) == "<div><p>nothing</p></div>"


def test_no_text_from_elsewhere_is_html_or_turns_a_line_around() -> None:
    bad = "<script>alert(1)</script>\u202e&amp;"
    text = short_table(bad, [{bad: bad, "lens": [bad]}])
    assert Cells(text).elements == {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert Cells(text).rows[1][0] == "<script>alert(1)</script>\\u202e&amp;" and "\u202e" not in text


def test_a_long_text_is_cut() -> None:
    assert re.search(r">x{57}\.\.\.<", short_table("", [{"prompt": "x" * 100}]))
