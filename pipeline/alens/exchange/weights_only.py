"""Files that torch wrote, read for their tensors alone. This is the one module that opens a pickle.

In: a `.ckpt`, `.pt` or `.bin` file. Out: the dictionary in it, tensors memory-mapped where the file allows. A pickle
may hold any program; torch's `weights_only` reader knows tensors and plain containers, and runs nothing. The size that
a file claims for its content is compared with its own before it is read: torch never compresses weights.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from alens.errors import AlensError, DamageError, RequestError

ZIP = b"PK\x03\x04"
"""The first bytes of a zip archive; torch looks at these, whatever the end of the file says."""


def load_weights(path: Path) -> dict[str, Any]:
    """The dictionary in `path`.

    Raises `RequestError` when the file is absent or holds more than weights, `DamageError` when it is not whole.
    """
    if not path.is_file():
        raise RequestError(f"{path} is not there: give the file as it was published")
    try:
        # Files from before torch 1.6 are not zip archives, and cannot be mapped.
        if mapped := _is_zip(path):
            _check_archive(path)
        body = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except (AlensError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise anything
        raise _refusal(path, error) from None
    if not isinstance(body, dict):
        raise RequestError(
            f"{path} holds a {type(body).__name__}, not a dictionary of weights: give a state dict"
        )
    return body


def instead(tensor: Any, shape: tuple[int, ...]) -> str | None:
    """What `tensor` is instead of a whole tensor of this shape; None where it is one."""
    if not isinstance(tensor, torch.Tensor):
        return "nothing"
    return None if tuple(tensor.shape) == shape and is_whole(tensor) else str(tuple(tensor.shape))


def is_whole(tensor: torch.Tensor) -> bool:
    """Whether a tensor stores each of its numbers; one with strides of 0, or a sparse one, grows when it is used."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_nested)
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ZIP)) == ZIP


def _check_archive(path: Path) -> None:
    """Raises `DamageError` for an archive whose entries claim more bytes than it has."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    claimed = sum(entry.file_size for entry in entries)
    if claimed > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise DamageError(
            f"{path} has {size:,} bytes and says it holds {claimed:,}, compressed or twice: torch stores weights as they "
            "are, so it did not write this; fetch it again"
        )


def _refusal(path: Path, error: Exception) -> Exception:
    """What torch refused, as an error that says what to do."""
    text = str(error)
    unknown = re.search(r"GLOBAL ([\w.]+)", text)
    if unknown or ("Weights only load failed" in text and "Unsupported" in text):
        what = f" ({unknown[1]})" if unknown else ""
        return RequestError(
            f"{path} holds more than weights{what}, and code from a file is never run: give the training checkpoint, "
            "or save the state dict alone"
        )
    return DamageError(
        f"{path} cannot be read as weights ({type(error).__name__}): it is cut or altered, or torch did not write it; "
        "fetch it again"
    )
