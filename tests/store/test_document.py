"""JSON documents that hold the hash of their own contents: no byte of them can change unnoticed."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alens.errors import DamageError
from alens.store import document

BODY: dict[str, Any] = {"plan": "a1", "rows": 12, "loss": 0.5, "files": {"c.0": ["é", None, True, {}]}}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(st.text().filter(lambda name: name != "sha256"), values, max_size=4)


def assert_damaged(content: bytes) -> None:
    with pytest.raises(DamageError) as caught:
        document.decode(content, "STORE/x.json")
    assert str(caught.value).startswith("STORE/x.json ")
    assert str(caught.value).endswith(document.MEND)
    assert len(str(caught.value).splitlines()) == 1


@given(bodies)
def test_what_is_encoded_is_decoded(body: dict[str, Any]) -> None:
    assert document.decode(document.encode(body), "x.json") == body


def test_the_hash_is_the_last_field_and_that_of_the_document_without_it() -> None:
    content = document.encode(BODY)
    body = json.loads(content)
    assert list(body) == [*BODY, "sha256"]
    without = (json.dumps(BODY, indent=1) + "\n").encode()
    assert body["sha256"] == hashlib.sha256(without).hexdigest()


def test_people_can_read_it() -> None:
    assert document.encode({"rows": 12}).decode().startswith('{\n "rows": 12,\n "sha256": "')


def test_every_other_value_of_every_byte_is_damage() -> None:
    content = document.encode(BODY)
    for at in range(len(content)):
        for value in {*range(256)} - {content[at]}:
            assert_damaged(content[:at] + bytes([value]) + content[at + 1 :])


def test_every_byte_more_or_less_is_damage() -> None:
    content = document.encode(BODY)
    for at in range(len(content)):
        assert_damaged(content[:at] + content[at + 1 :])
        for more in (b" ", b"\n", b"0", b",", b"\x00"):
            if content[:at] + more + content[at:] != content:
                assert_damaged(content[:at] + more + content[at:])
    for more in (b" ", b"\n", b"\x00", content):
        assert_damaged(content + more)


def test_every_shorter_beginning_is_damage() -> None:
    content = document.encode(BODY)
    for length in range(len(content)):
        assert_damaged(content[:length])


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda body: json.dumps(body),
        lambda body: json.dumps(body, indent=1),
        lambda body: json.dumps(body, indent=2) + "\n",
        lambda body: json.dumps(body, indent=1, sort_keys=True) + "\n",
        lambda body: json.dumps(body, indent=1, ensure_ascii=False) + "\n",
        lambda body: "\ufeff" + json.dumps(body, indent=1) + "\n",
        lambda body: (json.dumps(body, indent=1) + "\n").replace("\n", "\r\n"),
        lambda body: (json.dumps(body, indent=1) + "\n").replace("12", "12.0"),
        lambda body: (json.dumps(body, indent=1) + "\n").replace('"rows": 12', '"rows": 3, "rows": 12'),
    ],
)
def test_the_same_contents_written_in_another_way_are_damage(rewrite: Any) -> None:
    assert_damaged(rewrite(json.loads(document.encode(BODY))).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"{}", b"[]", b"null", b"7", b'"text"', b"\xff", b"\x00", b"NaN", b'{"sha256": 5}', b'["sha256"]',
        b'{"sha256": null}', b'{"sha256": {}}', "{}".encode("utf-16"), b"[" * 100_000, b"9" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_document_is_damage(content: bytes) -> None:
    assert_damaged(content)


@given(st.binary(max_size=60))
def test_other_bytes_are_damage(content: bytes) -> None:
    assert_damaged(content)


def test_a_field_with_the_name_of_the_hash_cannot_be_written() -> None:
    with pytest.raises(AssertionError):
        document.encode({"sha256": "mine"})
