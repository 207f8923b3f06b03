"""A streamed file holds what the library would write."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from alens.errors import RunError
from alens.exchange import safetensors_stream
from alens.store import durable

SHAPES = st.dictionaries(
    st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=8).filter(
        lambda name: name != "__metadata__"
    ),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    min_size=1,
    max_size=4,
)


@settings(max_examples=30)
@given(shapes=SHAPES, dtype=st.sampled_from(sorted(safetensors_stream.DTYPES)))
def test_the_library_reads_what_was_streamed(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[int, ...]], dtype: str
) -> None:
    path = tmp_path_factory.mktemp("streams") / "x.safetensors"
    given = {name: torch.randn(shape) for name, shape in shapes.items()}
    record = safetensors_stream.put(path, shapes, dtype, given.values())
    stored = load_file(path)
    assert stored.keys() == given.keys()
    for name, tensor in given.items():
        assert torch.equal(stored[name], tensor.to(safetensors_stream.DTYPES[dtype][0]))
    assert record == {
        "bytes": safetensors_stream.size_bytes(shapes, dtype),
        "sha256": durable.sha256_of(path),
    }


def test_one_tensor_is_made_at_a_time(tmp_path: Path) -> None:
    made: list[int] = []

    def tensors():
        for index in range(3):
            made.append(index)
            # The tensor before this one has been written when this one is asked for.
            (partial,) = tmp_path.glob(".*.partial")
            sizes.append(partial.stat().st_size)
            yield torch.zeros(1 << 16)

    sizes: list[int] = []
    safetensors_stream.put(tmp_path / "x", {str(i): (1 << 16,) for i in range(3)}, "float32", tensors())
    assert made == [0, 1, 2]
    assert sizes[1] >= 4 << 16 and sizes[2] >= 8 << 16


def test_a_number_that_the_dtype_cannot_hold_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match="w of x has a number that float16 does not hold: take another --dtype"
    ):
        safetensors_stream.put(tmp_path / "x", {"w": (1,)}, "float16", [torch.tensor([1e6])])
    assert not list(tmp_path.iterdir())
