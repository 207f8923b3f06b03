"""The frame of pages: nothing that a prompt says becomes part of the page."""

import re

from alens.pictures.page import COMPRESSED_FROM, page

from ..page_data import held


def test_data_cannot_end_its_element() -> None:
    data = {"prompt": "</script><script>alert(1)</script>", "é": [1, None]}
    text = page(title="<b>", body="<p>x</p>", script="let a = 1;\n", data=data)
    assert held(text) == data
    assert text.count("<script") == 2 and "<title>&lt;b&gt;</title>" in text


def test_a_page_may_load_nothing() -> None:
    text = page(title="t", body="")
    assert "default-src 'none'" in text and not re.search(r"""(src|href)=["'](?!data:)""", text)


def test_large_data_are_compressed_and_the_same_each_time() -> None:
    data = {"prompt": "</script>", "numbers": list(range(COMPRESSED_FROM // 6))}
    text = page(title="t", body="", script="", data=data)
    assert "application/gzip" in text and held(text) == data
    assert len(text) < COMPRESSED_FROM / 1.8 and page(title="t", body="", script="", data=data) == text
