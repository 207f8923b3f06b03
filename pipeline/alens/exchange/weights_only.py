"""Files that torch wrote, read for their tensors alone: the one place that opens a pickle.

In: a `.ckpt`, `.pt` or `.bin` file. Out: the dictionary in it, tensors memory-mapped where the file allows. A pickle
may hold any program; torch's `weights_only` reader knows tensors and plain containers and runs nothing else.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from alens.errors import DamageError, RequestError


def load_weights(path: Path) -> dict[str, Any]:
    """The dictionary in `path`.

    Raises `RequestError` when it is not there or holds more than weights, `DamageError` when it is not whole.
    """
    if not path.is_file():
        raise RequestError(f"{path} is not there: give the file as it was published")
    try:
        # Files of before torch 1.6 are no zip archives and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        body = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except Exception as error:  # a damaged file ends in errors of any kind
        raise _refusal(path, error) from None
    if not isinstance(body, dict):
        raise RequestError(
            f"{path} holds one {type(body).__name__} and no dictionary of weights: give a state dict"
        )
    return body


def _refusal(path: Path, error: Exception) -> Exception:
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
