"""A model directory or a GGUF file -> transformers' model, with every weight from the files.

In: a directory or a GGUF file. Out: transformers' model. transformers fills weights that a checkpoint lacks with random numbers and
goes on; a prefix before the names (`_orig_mod.` of torch.compile, `module.` of DataParallel) makes all of them random.
So the report of the loading is read, and a model that is not whole is refused.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.model import configuration, gguf_file
from alens.model.libraries import first_line, importing

log = logging.getLogger("alens")

PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

NAMED = 3
"""The number of tensors of each kind that a message names."""


_QUANTISED = (
    "{folder} is quantised ({kind}): its weights are codes, and alens reads W_O and W_U as they are; give the model as it "
    "was before, or load it where that library is, `dequantize()` it and save_pretrained to a new directory"
)


def load(folder: Path, dtype: torch.dtype) -> Any:
    """The model in `folder` (or the GGUF file at this path), on the CPU, in evaluation mode, frozen.

    Raises `RequestError` when transformers cannot load it as a causal language model, when its weights stay quantised,
    or when the files lack a tensor or hold one of another shape; tied weights may be absent.
    """
    with importing():
        from transformers import AutoModelForCausalLM

    config = configuration.read(folder)

    try:
        with (
            importing(),
            gguf_file.loading(folder, config) as where,
        ):  # this imports the code of the architecture
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                **where,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the report lists them, and they are refused below
            )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the code of each architecture and of each quantisation fails in its own way
        raise RequestError(_not_loaded(folder, config, error)) from error
    model, report = loaded
    if (kind := _quantised(model, config)) is not None:
        raise RequestError(_QUANTISED.format(folder=folder, kind=kind))
    _check(folder, type(model).__name__, report, len(model.state_dict()))
    if gguf_file.is_gguf(folder):
        _check_used(folder, model)
        gguf_file.close()
    model.config.use_cache = False  # no token is generated: keys and values would only take memory
    return model.eval().requires_grad_(False)


def _not_loaded(folder: Path, config: Any, error: Exception) -> str:
    """The message that says why transformers could not load the model, and what to do."""
    name, message = config.architectures[0], first_line(error)
    if (kind := configuration.quantised(config)) is not None:
        # The library of the quantisation may be missing, but to install it would not help.
        return _QUANTISED.format(folder=folder, kind=kind)
    if "for this kind of AutoModel" in message:
        return (
            f"{name} in {folder} is not a causal language model to transformers: where a language model is a part of it, "
            "as of one that sees images, load it and save_pretrained that part to a new directory"
        )
    return f"cannot load {name} from {folder}: {message}"


def _quantised(model: Any, config: Any) -> str | None:
    """How the weights of a loaded model are packed; None for plain numbers, also where loading unpacked them."""
    if getattr(model, "is_quantized", False) and configuration.quantised(model.config) != "gguf":
        return configuration.quantised(config) or "by its config.json"
    for name, parameter in model.named_parameters():
        if parameter.dtype not in PLAIN:
            return f"{name} is {str(parameter.dtype).removeprefix('torch.')}"
    return None


def _check(folder: Path, architecture: str, report: dict[str, Any], num_tensors: int) -> None:
    """Raises `RequestError` where tensors are missing or of another shape; warns of tensors that are not used."""
    missing, unused = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    others = f"{_tensors(len(unused))} of its files unused ({_some(unused)})"
    shapes = [
        f"{name} is {_shape(there)}, not {_shape(needed)}"
        for name, there, needed in sorted(report["mismatched_keys"])
    ]
    if not missing and not shapes:
        if unused:
            log.warning(f"{folder}: {architecture} leaves {others}")
        return
    faults = [f"it lacks {len(missing)} of its {_tensors(num_tensors)} ({_some(missing)})"] if missing else []
    faults += [f"{_tensors(len(shapes))} of another shape ({_some(shapes)})"] if shapes else []
    faults += [others] if unused else []
    raise RequestError(
        f"{folder} is not a whole {architecture}: {', '.join(faults)}; {_mend(folder, missing, unused)}"
    )


def _check_used(file: Path, model: Any) -> None:
    """Warns of numbers of a GGUF file that are not in the model: transformers leaves out tensors that it does not know."""
    left = gguf_file.num_numbers(file) - sum(parameter.numel() for parameter in model.parameters())
    if left > 0:
        log.warning(f"{file}: {type(model).__name__} leaves {left:,} of its numbers unused")


def _mend(folder: Path, missing: Iterable[str], unused: Iterable[str]) -> str:
    """How to save a whole model."""
    if gguf_file.is_gguf(folder):
        return "give another file, or the model as a directory of safetensors"
    for name in missing:
        for other in unused:
            if other.endswith(f".{name}"):
                return (
                    f"the names begin with {other.removesuffix(name)!r}, so save the model itself, not its wrapper, "
                    "with save_pretrained"
                )
    return "save the model with save_pretrained, as the class that config.json names"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _tensors(number: int) -> str:
    return f"{number} tensor{'' if number == 1 else 's'}"


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
