"""Files of Jacobian lenses, made here as TransformerLens and the head-level lens on the hub have them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from alens.errors import RequestError
from alens.exchange import jacobian_lens
from alens.model import activations
from alens.model.models import LoadedModel

from .import_requests import request

TOKENS = torch.tensor([[10, 200, 3000, 7, 42, 1]])


def save(path: Path, layers: int, seed: int = 0, **more: Any) -> dict[int, torch.Tensor]:
    """Write a file of Jacobians (192, 192) of these many layers."""
    draws = torch.Generator().manual_seed(seed)
    matrices = {layer: torch.randn(192, 192, generator=draws) for layer in range(layers)}
    torch.save({"J": matrices, "n_prompts": 7, "source_layers": list(matrices), "d_model": 192, **more}, path)
    return matrices


def test_lenses_of_layers_read_the_stream_and_say_what_transformer_lens_says(
    model: LoadedModel, tmp_path: Path
) -> None:
    path = tmp_path / "lens.pt"
    matrices = save(path, 3)
    assert jacobian_lens.recognises(path)
    published = jacobian_lens.read(request(path), model)
    assert (published.heads.names, published.site) == (["0.0", "1.0", "2.0"], "resid_post")
    h_TD = activations.run(model, TOKENS, [1], ("resid_post",)).sites_BTD["resid_post", 1][0]
    expected_TV = model.bridge.ln_final(h_TD @ matrices[1].T) @ model.W_U_DV + model.b_U_V
    torch.testing.assert_close(published.maps(1).logits(0, h_TD), expected_TV, rtol=1e-3, atol=1e-3)
    matrices[3] = torch.eye(192)
    torch.save({"jacobian_sum": {layer: 4 * J for layer, J in matrices.items()}, "n_done": 4}, path)
    again = jacobian_lens.read(request(path, layer=1), model)
    assert again.heads.names == ["1.0"]
    torch.testing.assert_close(again.maps(1).logits(0, h_TD), expected_TV, rtol=1e-3, atol=1e-3)


def test_lenses_of_heads_are_told_by_the_last_layer_and_read_z(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "heads.pt"
    matrices = save(path, 4)
    published = jacobian_lens.read(request(path), model)
    assert published.site == "attn.z" and len(published.heads) == 24
    z_TE = activations.run(model, TOKENS, [3]).z_BTHE[3][0][:, 2]
    moved_TD = z_TE @ matrices[3][:, 64:96].T
    expected_TV = model.bridge.ln_final(moved_TD) @ model.W_U_DV + model.b_U_V
    torch.testing.assert_close(published.maps(3).logits(2, z_TE), expected_TV, rtol=1e-3, atol=1e-3)
    save(path, 4, metadata={"hook_convention": "blocks.{layer}.hook_out"})
    assert jacobian_lens.read(request(path), model).site == "resid_post"


def test_what_is_of_another_model_is_refused(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "lens.pt"
    for body, says in (
        ({"J": {9: torch.eye(192)}}, "has Jacobians of layers"),
        ({"J": {0: torch.eye(64)}}, "has (64, 64) for layer 0, and demo needs (192, 192)"),
        ({"jacobian_sum": {0: torch.eye(192)}}, "is a checkpoint of None prompts"),
    ):
        torch.save(body, path)
        with pytest.raises(RequestError) as refused:
            jacobian_lens.read(request(path), model)
        assert says in str(refused.value)
    (tmp_path / "text.pt").write_text("nothing")
    assert not jacobian_lens.recognises(tmp_path / "text.pt")
