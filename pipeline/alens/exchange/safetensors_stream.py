"""A safetensors file that is written with one tensor in memory at a time.

In: names, shapes and one dtype, then the tensors in that order. Out: a file that any safetensors reader opens,
durable, and whole or absent; its size and SHA-256. Departure from the library: its `save` takes all tensors at once,
and a layer of GPT-2 small in the paper's form takes 1.85 GB. The format is that of huggingface/safetensors: 8 bytes
that give the length of the header, a JSON header, the numbers.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from alens.errors import RunError
from alens.store import durable

DTYPES = {
    "float32": (torch.float32, "F32", 4),
    "float16": (torch.float16, "F16", 2),
    "bfloat16": (torch.bfloat16, "BF16", 2),
}
"""Name -> torch's dtype, the format's name for it, bytes of a number."""

ALIGNMENT = 8
"""The first number begins at a multiple of this, as the format asks."""

Shapes = Mapping[str, tuple[int, ...]]


def header(shapes: Shapes, dtype: str) -> bytes:
    """The bytes of the file before its numbers."""
    _, name, size = DTYPES[dtype]
    body: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for key, shape in shapes.items():
        end = at + size * torch.Size(shape).numel()
        body[key] = {"dtype": name, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(body, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def size_bytes(shapes: Shapes, dtype: str) -> int:
    """The size of the whole file."""
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    return len(header(shapes, dtype)) + DTYPES[dtype][2] * numbers


def put(path: Path, shapes: Shapes, dtype: str, tensors: Iterable[torch.Tensor]) -> dict[str, Any]:
    """Write `tensors`, in the order of `shapes`; returns size and hash, as a record keeps them.

    Raises `RunError` for a number that the dtype cannot hold.
    """
    digest = hashlib.sha256()

    def parts() -> Iterator[bytes | memoryview]:
        head = header(shapes, dtype)
        digest.update(head)
        yield head
        for (key, shape), tensor in zip(shapes.items(), tensors, strict=True):
            assert tuple(tensor.shape) == shape, (key, tensor.shape, shape)
            part = _bytes(path, key, tensor, dtype)
            digest.update(part)
            yield part

    durable.put_stream(path, parts())
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _bytes(path: Path, key: str, tensor: torch.Tensor, dtype: str) -> memoryview:
    kept = tensor.detach().to("cpu", DTYPES[dtype][0]).contiguous()
    if not bool(torch.isfinite(kept).all()):
        raise RunError(
            f"{key} of {path.name} has a number that {dtype} does not hold: take another --dtype, or check the lenses"
        )
    view: memoryview = kept.view(-1).view(torch.uint8).numpy().data
    return view
