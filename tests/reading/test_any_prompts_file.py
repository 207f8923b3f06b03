"""Files of prompts and of terms with any bytes: their content is read as it stands, or one line says what is wrong."""

import json
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from alens.errors import RequestError
from alens.reading.prompts import read_prompts
from alens.reading.terms import read_terms

LINES = st.lists(
    st.text(st.characters(blacklist_characters="\n\r", blacklist_categories=["Cs"]), max_size=20)
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
)


@given(st.binary(max_size=80), st.sampled_from([".txt", ".jsonl"]))
@example(b"\xff", ".txt")
@example(b'{"prompt": "\\ud800"}', ".jsonl")
@example(b"[" * 80, ".jsonl")
@example(b'{"prompt": 1' + b"0" * 60 + b"}", ".jsonl")
def test_any_bytes_are_prompts_or_one_line(tmp_path_factory: Any, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    for read in (read_prompts, read_terms):
        try:
            entries = read(path)
        except RequestError as error:
            assert len(str(error).splitlines()) <= 1 or suffix == ".txt"
        else:
            assert entries


@given(LINES)
@example(["\u2028", "a\u2028b", "\x85", "\x1c"])
@example(["\ufeff"])
def test_every_line_that_says_something_is_a_prompt(tmp_path_factory: Any, lines: list[str]) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    expected = [line for line in lines if line.strip()]
    if not expected:
        return
    assert [prompt.text for prompt in read_prompts(path)] == expected


@given(st.dictionaries(st.sampled_from(["prompt", "label", "other"]), VALUES))
def test_any_object_is_a_prompt_or_one_line(tmp_path_factory: Any, body: dict[str, Any]) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "objects.jsonl"
    path.write_text(json.dumps(body))
    try:
        (prompt,) = read_prompts(path)
    except RequestError as error:
        assert "\n" not in str(error)
    else:
        assert prompt.text == body["prompt"] and isinstance(prompt.label, str | None)
