"""The frame of pages: nothing that a prompt says becomes part of the page."""

import json
import re

from alens.pictures.page import page


def test_data_cannot_end_its_element() -> None:
    data = {"prompt": "</script><script>alert(1)</script>", "é": [1, None]}
    text = page(title="<b>", body="<p>x</p>", script="let a = 1;\n", data=data)
    (held,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert json.loads(held) == data
    assert text.count("<script") == 2 and "<title>&lt;b&gt;</title>" in text


def test_a_page_may_load_nothing() -> None:
    text = page(title="t", body="")
    assert "default-src 'none'" in text and not re.search(r"""(src|href)=["'](?!data:)""", text)
