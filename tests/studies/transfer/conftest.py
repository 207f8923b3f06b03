"""A copy of the demo that computes the same with another basis in every head, and its cache."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import CacheRequest, demo, open_cache, write_cache

Change = Callable[[dict[str, torch.Tensor]], None]


def changed_model(folder: Path, change: Change) -> Path:
    """The demo's directory with other weights, in float32."""
    folder.mkdir(parents=True)
    for path in demo.MODEL.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = {name: value.float() for name, value in load_file(demo.MODEL / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def rotate(weights: dict[str, torch.Tensor]) -> None:
    """An orthogonal change of basis in each head: z becomes z R, W_O becomes R^T W_O; the model stays the same."""
    torch.manual_seed(0)
    for layer in range(4):
        R_HEE = torch.linalg.qr(torch.randn(6, 32, 32)).Q
        name = f"transformer.h.{layer}.attn"
        value_DHE = weights[f"{name}.c_attn.weight"][:, 384:].view(192, 6, 32)
        value_DHE.copy_(torch.einsum("dhe,hef->dhf", value_DHE, R_HEE))
        bias_HE = weights[f"{name}.c_attn.bias"][384:].view(6, 32)
        bias_HE.copy_(torch.einsum("he,hef->hf", bias_HE, R_HEE))
        output_HED = weights[f"{name}.c_proj.weight"].view(6, 32, 192)
        output_HED.copy_(R_HEE.mT @ output_HED)


@pytest.fixture(scope="session")
def rotated_cache(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of `demo_cache`, layers 0 and 3, of the demo with rotated heads. Shared."""
    folder = tmp_path_factory.mktemp("rotated")
    model = changed_model(folder / "model", rotate)
    settings = dataclasses.replace(open_cache(demo_cache).plan.settings, layers=(0, 3))
    write_cache(
        CacheRequest(model=str(model), corpus="demo", store=folder / "cache", settings=settings, device="cpu")
    )
    return folder / "cache"
