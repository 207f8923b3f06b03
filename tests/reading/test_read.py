"""`alens.read`: a directory and a prompt give the page of all heads, and a notebook shows it."""

import re
from html import unescape
from pathlib import Path

import pytest

import alens
from alens import HeadReader, load_lenses, open_cache
from alens.errors import RequestError
from alens.reading.page_data import PageData

from ..page_data import held

PROMPT = "He took her hand and"
BAD = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def reader(demo_lenses: Path) -> HeadReader:
    return HeadReader(demo_lenses, device="cpu")


@pytest.fixture(scope="module")
def page(reader: HeadReader) -> PageData:
    return alens.read(reader, [PROMPT, f'Say "{BAD}"'], top=3, terms=["her"])


def test_a_directory_and_a_prompt_are_enough(demo_lenses: Path, page: PageData) -> None:
    one = alens.read(str(demo_lenses), PROMPT, top=3, terms=["her"])
    assert repr(one) == "<PageData: 1 prompt, 4 heads of 2 layers of demo>"
    first = page.to_frame().query("prompt == @PROMPT")
    assert one.to_frame().equals(first.reset_index(drop=True))


def test_lenses_may_be_open_and_a_part_may_be_asked_for(demo_lenses: Path) -> None:
    part = alens.read(load_lenses(demo_lenses), PROMPT, heads="3.1", positions=[-1], device="cpu")
    assert [(row["layer"], row["head"], row["position"]) for row in part.records()] == [(3, 1, 4)]


def test_the_frame_says_what_a_reading_says(page: PageData, reader: HeadReader) -> None:
    of_prompt = [row for row in page.records() if row["prompt"] == PROMPT]
    read = reader.read(PROMPT, positions=range(5), top=3).records()
    assert len(of_prompt) == len(read) == 5 * 4
    for row, other in zip(of_prompt, read, strict=True):
        for name, value in row.items():
            if name != "prompt":
                rounded = pytest.approx(other[name], abs=6e-4) if isinstance(value, float) else other[name]
                assert value == rounded, name


def test_a_notebook_shows_the_page_in_a_frame(page: PageData) -> None:
    shown = page._repr_html_()
    ((sandbox, source),) = re.findall(
        r'^<iframe [^>]*sandbox="([^"]*)"[^>]* srcdoc="([^"]*)"></iframe>$', shown
    )
    assert sandbox == "allow-scripts"  # it sees neither the notebook nor other frames
    assert "<" not in source and BAD not in unescape(source)
    assert held(unescape(source)) == page.to_json()


@pytest.mark.parametrize("which", ["cache", "number"])
def test_anything_else_than_lenses_is_refused(which: str, demo_cache: Path) -> None:
    given, name = (open_cache(demo_cache), "Cache") if which == "cache" else (3, "int")
    says = f"^lenses is a {name}: give a lens directory, hf://OWNER/NAME, or what load_lenses gave$"
    with pytest.raises(RequestError, match=says):
        alens.read(given, PROMPT)  # type: ignore[arg-type]


def test_a_place_of_the_model_is_not_for_a_reader_that_has_it(reader: HeadReader) -> None:
    with pytest.raises(RequestError, match=r"a HeadReader has its model loaded: give model.* to HeadReader"):
        alens.read(reader, PROMPT, model="demo")
