"""What the files of a directory of lenses hold."""

from pathlib import Path

import torch
from safetensors.torch import load_file


def tensors(lenses: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every file of lenses: `layer-00/weight`."""
    files = sorted(lenses.glob("*.safetensors"))
    return {f"{file.stem}/{name}": value for file in files for name, value in load_file(file).items()}


def tensor_bytes(lenses: Path) -> dict[str, bytes]:
    """The bytes of every tensor: equal ones are the same to the last bit, NaN too."""
    return {name: value.numpy().tobytes() for name, value in tensors(lenses).items()}
