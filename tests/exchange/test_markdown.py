"""Text of others in Markdown, read by a parser of CommonMark with tables."""

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from alens.exchange import markdown
from alens.printable import printable

PARSER = MarkdownIt("commonmark").enable("table")
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=25) | st.text(
    "`|\\<>[]()!*_#\n ab:/.", max_size=25
)
SHOWN = {"inline", "text", "code_inline", "em_open", "em_close", "strong_open", "strong_close"}
"""What a name may become; emphasis does no harm, because it only marks letters."""


def kinds(text: str) -> set[str]:
    """The kinds of elements in a text: blocks, and elements within them."""
    types = set()
    for block in PARSER.parse(text):
        types |= {block.type} | {child.type for child in block.children or ()}
    return types


@given(ANY)
@example("a`b``c")
@example("`")
@example("x|y")
@example("<img src=x onerror=alert(1)>")
@example("[click](javascript:alert(1))")
@example("\n# verified")
def test_a_name_is_shown_and_is_nothing_else(text: str) -> None:
    for show in (markdown.name, markdown.code):
        assert kinds(f"# Lenses of {show(text)}") <= SHOWN | {"heading_open", "heading_close"}
        table = PARSER.parse(f"| | |\n| --- | --- |\n| design | {show(text)} |\n")
        assert [token.type for token in table].count("td_open") == 2
        assert not {child.type for token in table for child in token.children or ()} - SHOWN


@given(ANY)
@example("a`b``c |")
def test_code_shows_every_character(text: str) -> None:
    (_, inline, _) = PARSER.parse(f"x {markdown.code(text)} y")
    (code,) = [child for child in inline.children or () if child.type == "code_inline"]
    assert code.content.replace("\\|", "|").split() == printable(text).split()


@given(ANY)
@example("<b>bold</b> [a](b) `c` ![d](e) &lt; \\")
def test_a_sentence_has_no_links_code_or_html(text: str) -> None:
    parts = kinds(f"Said: {markdown.sentence(text)}")
    assert not parts & {"html_inline", "html_block", "link_open", "image", "code_inline", "heading_open"}
    (_, inline, _) = PARSER.parse(f"Said: {markdown.sentence(text)}.")
    assert "softbreak" not in {child.type for child in inline.children or ()}


def test_names_as_most_people_give_them_stay() -> None:
    for text in (
        "gpt2",
        "openai-community/gpt2",
        "low-rank",
        "my.module:Class",
        "Größe 字",
        "demo, split train",
    ):
        assert markdown.name(text) == markdown.sentence(text) == text
    assert markdown.code("gpt2") == "`gpt2`"
    assert markdown.name("www.example.org") == "`www.example.org`"  # a hub would make a link of it
    assert markdown.name("https://example.org") == "`https://example.org`"
