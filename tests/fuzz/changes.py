"""Seeded changes: values of wrong types and sizes in JSON, flipped bits, cuts, arrays that are not what they were.

In: a file and random draws. Out: the file changed in one place, and a description of the change.
"""

import io
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np

from . import forge

WRONG: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 2.5, float("nan"), float("inf"), -float("inf"), 1e308, 10**6, 10**11,
    16 * 10**9, 2**31, 2**63, 2**64, 10**30, -(10**30), "", "0", "128", "abc", "../../x", "/etc/passwd", "a/b", "a\x00b",
    "\x1b[2Jx\n", "é\u202e", "\ud800", "nan", "float32", "int64", "O", [], {}, [0], [[0]], ["../../x"], [None], [{}],
    {"x": 1}, {"0": [0]}, {"bytes": 5, "sha256": "0"}, [0, 0], [1, 2], list(range(300)),
)  # fmt: skip
RAW = {
    "@nested": "[" * 100_000 + "]" * 100_000,
    "@huge": "1" * 5_000,
    "@far": "1e999",
    "@long": json.dumps("x" * 5_000_000),
}
"""Text that `json` would not write, or not quickly, by the mark in its place."""


def places(body: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in an object. Of a long list: the first, the second and the last."""
    all_places = [path] if path else []
    keys: list[Any] = []
    if isinstance(body, dict):
        keys = list(body)
    elif isinstance(body, list):
        keys = sorted({0, 1, len(body) - 1} & set(range(len(body))))
    for key in keys:
        all_places += places(body[key], (*path, key))
    return all_places


def _at(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


def change_json(path: Path, draw: random.Random) -> tuple[str, dict[str, str]] | None:
    """Change one value of a document and write it with its own hash. Gives what was done, and the raw text in it."""
    body = forge.read(path)
    hashed = b'"sha256"' in path.read_bytes()[-100:]
    if not body:
        return None
    # Places of few names first, so that a list of hashes is not all that is ever changed.
    by_name: dict[Any, list[tuple[Any, ...]]] = {}
    for place in places(body):
        by_name.setdefault(
            (len(place), place[-1] if isinstance(place[-1], str) and len(place[-1]) < 24 else None), []
        ).append(place)
    place = draw.choice(by_name[draw.choice(list(by_name))])
    parent, key = _at(body, place[:-1]), place[-1]
    raw: dict[str, str] = {}
    how = draw.random()
    if how < 0.08:
        del parent[key]
        what = "is left out"
    elif how < 0.12 and isinstance(parent, dict):
        parent["surprise"] = draw.choice(WRONG)
        what = "has a neighbour `surprise`"
    elif how < 0.2:
        mark = draw.choice(list(RAW))
        parent[key], raw, what = mark, {mark: RAW[mark]}, f"is {mark}"
    elif how < 0.35:
        parent[key] = _akin(parent[key], draw)
        what = f"is {repr(parent[key])[:60]}"
    else:
        parent[key] = draw.choice(WRONG)
        what = f"is {repr(parent[key])[:60]}"
    path.write_bytes(forge.encode(body, hashed, raw))
    return f"{'.'.join(map(str, place))} {what}", raw


def _akin(value: Any, draw: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return draw.choice((value + 1, value - 1, value * 2, value * 10**6, -value))
    if isinstance(value, str):
        return draw.choice((value + "x", value[:-1], value.upper(), value * 2, value[::-1]))
    if isinstance(value, list):
        return draw.choice((value + value, value[:-1], value[::-1], [value]))
    return {**value, "x": 0} if isinstance(value, dict) else 0


def flip(path: Path, draw: random.Random) -> str:
    """Flip one bit of a file, or cut it short."""
    content = path.read_bytes()
    if draw.random() < 0.15:
        length = draw.choice((0, 1, len(content) // 2, len(content) - 1))
        path.write_bytes(content[:length])
        return f"is cut to {length} bytes"
    # The first bytes hold what the others are: half of all flips are among them.
    position = draw.randrange(min(len(content), 400) if draw.random() < 0.5 else len(content))
    changed = bytearray(content)
    changed[position] ^= 1 << draw.randrange(8)
    path.write_bytes(changed)
    return f"has another bit in byte {position}"


def change_array(path: Path, draw: random.Random) -> str:
    """Replace a .npy file by one with objects, another dtype or shape, or a header that claims more than there is."""
    there = np.load(path)
    kind = draw.choice(("objects", "dtype", "shape", "claims", "values", "no array"))
    if kind == "objects":
        np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)
    elif kind == "dtype":
        np.save(path, there.astype(draw.choice(("f4", "i8", "S4", "b1", "c16", "V3", "u1", "<M8[s]"))))
    elif kind == "shape":
        np.save(path, there.reshape(draw.choice(((-1,), (-1, 2), (1, *there.shape), there.shape[::-1]))))
    elif kind == "claims":
        header = io.BytesIO()
        shape = draw.choice(((10**12, 16), (10**30,), (-1, 16), (0, 16), (2**62, 2**62)))
        np.lib.format.write_array_header_1_0(
            header, {"descr": there.dtype.str, "fortran_order": False, "shape": shape}
        )
        path.write_bytes(header.getvalue() + there.tobytes()[:64])
        return f"claims {shape}"
    elif kind == "values":
        np.save(path, np.full_like(there, np.iinfo(there.dtype).max))
    else:
        path.write_bytes(draw.choice((b"", b"PK\x03\x04", b"\x80\x04N.", b"\x93NUMPY\x01\x00\xff\xff{")))
    return f"has other {kind}"


def change_header(path: Path, draw: random.Random) -> str | None:
    """Change one value of the header of a safetensors file."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    if draw.random() < 0.15:
        claimed = draw.choice((0, 2, 10**8 + 1, 2**40, 2**63, size + 8))
        path.write_bytes(struct.pack("<Q", claimed) + content[8:])
        return f"claims a header of {claimed} bytes"
    header = json.loads(content[8 : 8 + size])
    place = draw.choice(places(header))
    value = draw.choice((*WRONG, [0, 10**15], [2**40, 2**40], "F64", "BF16", "I8"))
    _at(header, place[:-1])[place[-1]] = value
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    return f"says of {'.'.join(map(str, place))} {repr(value)[:60]}"


def change(path: Path, draw: random.Random) -> tuple[str, dict[str, str]] | None:
    """Change the meaning of a file. Its hashes are still to be made right. None: the file has nothing to change."""
    if path.suffix == ".npy":
        return change_array(path, draw), {}
    if path.suffix == ".safetensors":
        what = change_header(path, draw)
        return None if what is None else (what, {})
    if path.suffix in (".json", ".claim"):
        return change_json(path, draw)
    return flip(path, draw), {}
