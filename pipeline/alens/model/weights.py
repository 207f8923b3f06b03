"""The weights of a model directory: which files transformers loads, and a hash over their tensors.

In: a directory (or a GGUF file) and its configuration. Out: paths of safetensors files (or the file), and a SHA-256 over their tensors. Files that
are not loaded (`consolidated.safetensors`, an adapter, a copy under another name) do not count.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.job.progress import Report, counted, silent
from alens.model import gguf_file
from alens.sources.lfs import check_fetched

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The files that transformers looks for, in this order."""

ADAPTER = "adapter_config.json"
DISTRIBUTED = "shard-[0-9][0-9][0-9][0-9][0-9]-model-*-of-*.safetensors"
"""A checkpoint of torch.distributed, which transformers prefers to every other file."""


def files(folder: Path, config: Any) -> list[Path]:
    """The files that transformers loads from `folder`, in its order; some may be absent.

    Raises `RequestError` when there are none, or when transformers would load something else as well.
    """
    if gguf_file.is_gguf(folder):
        return [folder]
    distributed = sorted(folder.glob(DISTRIBUTED))
    if distributed:
        raise RequestError(
            f"{folder} holds a distributed checkpoint ({distributed[0].name}): load it and save_pretrained to a new directory"
        )
    if (folder / ADAPTER).is_file() and _peft_is_installed():
        raise RequestError(
            f"{folder / ADAPTER} is an adapter, which the installed peft would add to the weights: merge it into them "
            "and save_pretrained to a new directory, or take the file away"
        )
    named = getattr(config, "transformers_weights", None)
    names = [named] if named else [WHOLE, INDEX]
    there = [name for name in names if (folder / name).is_file()]
    if not named and not there:
        raise RequestError(
            f"{folder} has no {WHOLE} and no {INDEX}, which transformers loads (pickled weights are not loaded): "
            "save the model with save_pretrained"
        )
    first = folder / (there or names)[0]
    loaded = _named_by(first) if first.name.endswith(".json") else [first]
    heads = [folder / name for name in getattr(type(config), "extra_files", ())]
    return loaded + [path for path in heads if path.is_file()]


def sha256(paths: Sequence[Path], report: Report = silent) -> str:
    """A hash over the tensors, not the files: the same weights in other shards are the same model.

    Raises `RequestError` for a file that cannot be read.
    """
    return _over(tensor_hashes(paths, report))


def old_sha256(folder: Path, loaded: Sequence[Path]) -> str | None:
    """The hash of the first versions of alens, over all safetensors files of `folder`; the last tensor of a name counts.

    None where it does not describe the loaded weights, because another file has other tensors under the same names.
    """
    everything = tensor_hashes(sorted(folder.glob("*.safetensors")))
    if any(everything.get(name) != value for name, value in tensor_hashes(loaded).items()):
        return None
    return _over(everything)


def tensor_hashes(paths: Sequence[Path], report: Report = silent) -> dict[str, str]:
    """The SHA-256 over dtype, shape and bytes of each tensor; the last file with a name counts, as when loading."""
    from safetensors import SafetensorError, safe_open

    hashes: dict[str, str] = {}
    for number, path in enumerate(paths):
        if gguf_file.is_gguf(path):
            hashes |= gguf_file.digests(path, report)
            continue
        stage = f"hashing the model, file {number + 1} of {len(paths)}"
        check_fetched(path)
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in counted(list(tensors.keys()), report, stage, "tensors"):
                    hashes[name] = _tensor_sha256(tensors.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise RequestError(f"{path} is not a readable safetensors file: {error}") from None
    return hashes


def _named_by(index: Path) -> list[Path]:
    """The files that an index names. Raises `RequestError`."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if (outside := next((name for name in names if Path(name).name != name), None)) is not None:
            raise ValueError(f"{outside[:60]!r} is not a file beside it")
        return [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"{index} is not an index of safetensors files: {error!r}") from None


def _peft_is_installed() -> bool:
    from transformers.utils.import_utils import is_peft_available

    return bool(is_peft_available())


def _over(hashes: dict[str, str]) -> str:
    lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def _tensor_sha256(tensor: torch.Tensor) -> str:
    head = f"{tensor.dtype} {tuple(tensor.shape)}\n".encode()
    digest = hashlib.sha256(head)
    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
