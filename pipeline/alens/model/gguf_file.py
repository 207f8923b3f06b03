"""A GGUF file as a model: configuration, weights and tokenizer in one file, as transformers reads it.

In: the path of a file of llama.cpp's format, with weights of any type that transformers unpacks. Out: what
transformers is told to read it, hashes over its tensors and its tokenizer, and a `RequestError` for a file that
transformers would misread. The file is all that is read: a tokenizer or an adapter beside it does not count.
"""

import contextlib
import functools
import hashlib
import importlib.util
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alens.errors import RequestError
from alens.job.progress import Report, counted, silent
from alens.machine.replaced import replaced
from alens.model.libraries import refusing
from alens.sources.lfs import check_fetched

SUFFIX, PACKAGE = ".gguf", "gguf"

_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
"""The end of the name of one of several files that hold a model together."""

SCALED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that scale positions (Llama 3.1, Phi 3 of long texts). transformers leaves them out and says nothing."""

SCALING, SCALING_READ = (".rope.scaling.type", ".rope.scale_linear"), "gpt-oss."
"""The ends of fields that say the same of other models, and the architecture of which transformers reads them."""


def is_gguf(path: Path) -> bool:
    """Whether the path is named like a GGUF file."""
    return path.suffix == SUFFIX


def only_one(folder: Path) -> Path | None:
    """The GGUF file of a directory that holds one; None where it holds none. Raises `RequestError` where there are more."""
    files = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    if len(files) > 1:
        raise RequestError(
            f"{folder} holds {len(files)} GGUF files, each a model of its own: give one of them, such as {files[0]}"
        )
    return files[0] if files else None


def check(path: Path) -> None:
    """Raises `RequestError` unless `path` is a GGUF file that can be read here, and that transformers reads rightly."""
    if (part := _PART.search(path.name)) is not None:
        raise RequestError(
            f"{path} is one of {int(part[1])} files of a model: join them with `llama-gguf-split --merge`, and give the whole"
        )
    if importlib.util.find_spec(PACKAGE) is None:
        raise RequestError(f"{path} needs the Python package gguf: pip install gguf")
    check_fetched(path)
    if (scaled := _scaled(path)) is not None:
        raise RequestError(
            f"{path} scales its positions ({scaled}), and transformers leaves that out: give the model as a directory of "
            "safetensors"
        )


@contextlib.contextmanager
def named(path: Path) -> Iterator[dict[str, Any]]:
    """The arguments with which transformers loads from a model directory or a GGUF file, for use within the block."""
    if not is_gguf(path):
        yield {"pretrained_model_name_or_path": path}
        return
    import gguf

    # transformers reads the file three times. It would also read what lies beside the file.
    with replaced(gguf, "GGUFReader", lambda _: _opened(path)), tempfile.TemporaryDirectory() as empty:
        yield {"pretrained_model_name_or_path": empty, "gguf_file": str(path.resolve())}


@contextlib.contextmanager
def loading(path: Path, config: Any) -> Iterator[dict[str, Any]]:
    """Like `named`, to load the model: the weights of a GGUF file are unpacked, without a bar."""
    if not is_gguf(path):
        yield {"pretrained_model_name_or_path": path}
        return
    import transformers
    from transformers import modeling_gguf_pytorch_utils as unpacking

    more: dict[str, Any] = {"config": config}
    if hasattr(transformers, "GgufConfig"):  # newer versions keep weights packed where there is a kernel
        more["quantization_config"] = transformers.GgufConfig(dequantize=True)
    # No setting of transformers switches this bar off.
    with named(path) as where, replaced(unpacking, "tqdm", lambda tensors, **_: tensors):
        yield where | more


def complete(config: Any, path: Path) -> None:
    """Put into a configuration what a GGUF file does not say: the class, and numbers as they were before float32.

    Raises `RequestError` where transformers has no causal language model of this kind.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        raise RequestError(
            f"{path} holds a {config.model_type}, which is not a causal language model to transformers: give another model"
        ) from None
    config.architectures = [model_class.__name__]
    for name, value in config.to_dict().items():
        if isinstance(value, float):  # the file keeps float32: 9.999999747378752e-06 is 1e-05
            setattr(config, name, float(str(np.float32(value))))


def digests(path: Path, report: Report = silent) -> dict[str, str]:
    """The SHA-256 over type, shape and bytes of each tensor as the file has it."""
    hashes = {}
    for tensor in counted(_opened(path).tensors, report, "hashing the model", "tensors"):
        digest = hashlib.sha256(f"{tensor.tensor_type.name} {tuple(map(int, tensor.shape))}\n".encode())
        digest.update(np.ascontiguousarray(tensor.data).data)
        hashes[tensor.name] = digest.hexdigest()
    return hashes


def tokenizer_sha256(path: Path) -> str:
    """A hash over the fields of the tokenizer."""
    digest = hashlib.sha256()
    for name, field in _opened(path).fields.items():
        if name.startswith("tokenizer."):
            digest.update(b"".join(part.tobytes() for part in field.parts))
    return digest.hexdigest()


def num_numbers(path: Path) -> int:
    """How many numbers the tensors of the file hold."""
    return sum(int(tensor.n_elements) for tensor in _opened(path).tensors)


def close() -> None:
    """Forget what was read: the vocabulary takes much memory in that form."""
    _read.cache_clear()


def _scaled(path: Path) -> str | None:
    """The tensor or the field that scales the positions of a model, where transformers leaves it out."""
    reader = _opened(path)
    names = [tensor.name for tensor in reader.tensors if tensor.name in SCALED]
    for name, field in reader.fields.items():
        if name.endswith(SCALING) and not name.startswith(SCALING_READ) and field.contents() != "none":
            names.append(name)
    return names[0] if names else None


def _opened(path: Path) -> Any:
    """gguf's reader of the file. Raises `RequestError`."""
    status = path.stat()
    with refusing(f"{path} is not a readable GGUF file"):
        return _read(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1)
def _read(path: Path, mtime_ns: int, size: int) -> Any:
    """The reader, made once for a load: it makes an object of each token of the vocabulary, which takes seconds."""
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(path)
