"""The model with heads changed, against sums made by hand."""

from pathlib import Path

import pytest
import torch

from alens import load_lenses
from alens.model.edits import Edit, run_edited
from alens.reading.lensed_model import LensedModel

LAST = 3


@pytest.fixture(scope="module")
def reader(demo_lenses: Path) -> LensedModel:
    return LensedModel(load_lenses(demo_lenses), device="cpu")


@pytest.fixture(scope="module")
def tokens(reader: LensedModel) -> torch.Tensor:
    return torch.tensor([reader.tokens("The old man opened the door")])


def test_no_change_changes_nothing(reader: LensedModel, tokens: torch.Tensor) -> None:
    plain = run_edited(reader.model, tokens, [])
    same = run_edited(
        reader.model, tokens, [Edit(layer=1, head=2, z=lambda z: z), Edit(layer=1, output=lambda a: a)]
    )
    assert torch.equal(plain, same)
    assert torch.equal(plain, reader.run(tokens[0].tolist(), [0]).final_BTD)


def test_a_change_of_z_is_the_change_of_the_output_that_W_O_makes_of_it(
    reader: LensedModel, tokens: torch.Tensor
) -> None:
    moved_E = torch.linspace(-1, 1, 32)
    by_z = run_edited(reader.model, tokens, [Edit(layer=LAST, head=4, z=lambda z: z + moved_E)])
    moved_D = moved_E @ reader.model.W_O_LHED[LAST, 4]
    by_output = run_edited(reader.model, tokens, [Edit(layer=LAST, output=lambda a: a + moved_D)])
    plain = run_edited(reader.model, tokens, [])
    torch.testing.assert_close(by_z, by_output, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(by_z, plain, atol=1e-2)


def test_only_the_named_head_is_changed(reader: LensedModel, tokens: torch.Tensor) -> None:
    def all_but(z_BTHE: torch.Tensor) -> torch.Tensor:
        changed = z_BTHE.clone()
        changed[:, :, 4] = 0
        return changed

    one = run_edited(reader.model, tokens, [Edit(layer=0, head=4, z=torch.zeros_like)])
    whole = run_edited(reader.model, tokens, [Edit(layer=0, z=all_but)])
    assert torch.equal(one, whole)
