"""No text of others works a terminal or begins a line of its own; letters, signs and emoji stay."""

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from alens.printable import printable, printable_lines

ANY = st.text(st.characters(exclude_categories=()), max_size=30)
TURNS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Unicode's list of the characters that turn the direction of a text (property Bidi_Control)."""


def works_a_terminal(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in TURNS


@given(ANY)
@example("\x1b]52;c;cm0gLXJmIC8=\x07")
@example("\x1b[1A\x1b[2K")
@example("\x9b2J and \x7f and \r")
@example("\u202eevil\u2066")
@example("\udc80")
def test_what_a_terminal_obeys_is_escaped(text: str) -> None:
    assert not any(map(works_a_terminal, printable(text)))
    assert not any(works_a_terminal(c) for c in printable_lines(text) if c not in "\n\t")
    printable(text).encode()


@given(ANY)
def test_the_rest_stays_as_it_is(text: str) -> None:
    kept = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    assert printable(kept) == printable_lines(kept) == kept


@given(ANY)
def test_what_is_printable_is_not_escaped_again(text: str) -> None:
    assert printable(printable(text)) == printable(text)
    assert printable_lines(printable(text)) == printable(text)


def test_a_line_is_a_line() -> None:
    assert printable("a\nverified OK\t\r") == r"a\nverified OK\t\r"
    assert printable_lines("a\nb\tc\r") == "a\nb\tc\\r"


def test_every_script_and_emoji_stay() -> None:
    for text in (
        "Größe",
        "字",
        "שלום",
        "\u0645\u06cc\u200c",
        "\U0001f469\u200d\U0001f680",
        "a\u00a0b",
        "\\x1b",
    ):
        assert printable(text) == text
