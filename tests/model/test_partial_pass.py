"""Passes that begin at a layer, in models of several families, against whole passes."""

from pathlib import Path

import pytest
import torch

from alens.model import models
from alens.model.partial_pass import begins_at, clean_pass, without_heads

from .families import FAMILIES, save


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_that_begins_at_a_layer_gives_what_a_whole_one_gives(family: str, tmp_path: Path) -> None:
    names = FAMILIES[family]
    folder = save(tmp_path / family, names.config, names.options)
    model = models.load(models.find(str(folder)), dtype="float32", device="cpu")
    tokens_BT = torch.randint(1, 4000, (3, 12), generator=torch.Generator().manual_seed(0))
    clean = clean_pass(model, tokens_BT, (0, 1))
    mean_HE = torch.randn(4, model.W_O_LHED.shape[2], generator=torch.Generator().manual_seed(1))
    copies = [(3, 0), (1, 2), (0, 1)]
    for layer in (0, 1):
        assert begins_at(model, clean, layer)
        quick_CTD = without_heads(model, clean, layer, copies, mean_HE)
        whole_CTD = without_heads(model, clean, layer, copies, mean_HE, whole=True)
        torch.testing.assert_close(quick_CTD, whole_CTD, rtol=1e-5, atol=1e-5)
        assert float((clean.final_BTD[[0, 2, 1]] - quick_CTD).abs().max()) > 1e-3
    # Nothing of it is left in the model.
    again = clean_pass(model, tokens_BT, (0, 1))
    torch.testing.assert_close(again.final_BTD, clean.final_BTD)
