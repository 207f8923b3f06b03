"""Lenses of E x D are folded once many rows were read, and say the same before and after."""

from pathlib import Path
from unittest import mock

import pytest
import torch

from alens import load_lenses
from alens.lens.maps import AffineMaps
from alens.reading import lensed_model
from alens.reading.lensed_model import LensedModel


@pytest.mark.parametrize("room", [2**32, 0])
def test_lenses_are_folded_once_more_rows_were_read_than_folding_costs(closed_forms: Path, room: int) -> None:
    reader = LensedModel(load_lenses(closed_forms), device="cpu")
    z_HTE = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(0))
    with mock.patch.object(lensed_model, "FOLDED_BYTES", room):
        first, second, third = (reader.lens(3, [4], z_HTE) for _ in range(3))  # d_head is 32
    folded = list(reader._folded.values())
    assert len(folded) == (room > 0) and all(isinstance(maps, AffineMaps) for maps in folded)
    assert torch.equal(first, second) == (room == 0)
    torch.testing.assert_close(first, third, rtol=0, atol=0.05)
    assert (first.exp() * (first - third)).sum(-1).max() < 1e-4


def test_some_tokens_of_a_prompt_need_no_folded_lens(closed_forms: Path) -> None:
    """A page asks for them after its lists: folding then would make the whole weight of every head once more."""
    reader = LensedModel(load_lenses(closed_forms), device="cpu")
    z_HTE = torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(0))
    whole = reader.lens_logits(3, [1, 4], z_HTE)
    some = reader.lens_logits(3, [1, 4], z_HTE, [7, 4000, 7])
    torch.testing.assert_close(some, whole[..., [7, 4000, 7]], rtol=1e-5, atol=1e-4)
    few = reader.lens_logits(3, [1, 4], z_HTE[:, :3], [7, 4000])
    torch.testing.assert_close(few, whole[:, :3, [7, 4000]], rtol=1e-5, atol=1e-4)
    assert not reader._folded
