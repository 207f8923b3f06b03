"""The frozen model: finds MODEL, hashes its weights, loads it through TransformerLens.

In: `demo`, a Hugging Face directory, or a hub id. Out: a `ModelSource` (directory and record, nothing
loaded) and from it a `Subject`: the bridge, its unembedding and its tokenizer. Weights come from
safetensors only, and no code of the model's repository is run.
Shapes: L layers, H heads, E d_head, D d_model, V vocabulary.
"""

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alens import demo, hub
from alens.device import torch_device
from alens.errors import RequestError
from alens.importing import importing
from alens.store.schema import ModelRecord

FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What a model directory needs: config, weights, tokenizer."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "vocab.txt")


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that was found but not loaded."""

    folder: Path
    record: ModelRecord
    tokenizer_sha256: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The loaded model: what is run, and what its logits are made with."""

    source: ModelSource
    bridge: Any
    """TransformerLens' TransformerBridge, unprocessed weights, in evaluation mode."""
    tokenizer: Any
    """The `tokenizers` tokenizer: `encode`, `decode`."""
    end_of_text: int | None
    W_O_LHED: torch.Tensor
    W_U_DV: torch.Tensor
    b_U_V: torch.Tensor
    device: torch.device


def find(model: str, revision: str | None = None, *, local_only: bool = False) -> ModelSource:
    """Resolve MODEL to a directory and read its record; hashes the weights, loads nothing.

    With `local_only`, a hub id is looked up in the hub cache only. Raises `RequestError` for what is no model directory.
    """
    folder, commit = _locate(model, revision, local_only)
    config = _config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise RequestError(
            f"{folder} has no .safetensors weights (pickled weights are not loaded): save the model with save_pretrained"
        )
    tokenizer_files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not tokenizer_files:
        raise RequestError(f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES)}): save one there")
    record = ModelRecord(
        id=str(folder.resolve()) if Path(model).exists() else model,
        revision=commit,
        weights_sha256=_weights_sha256(weights),
        architecture=config.architectures[0],
        **_numbers(config, folder),
    )
    digest = hashlib.sha256()
    for file in tokenizer_files:
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return ModelSource(folder=folder, record=record, tokenizer_sha256=digest.hexdigest())


def find_again(
    record: ModelRecord, made: Path | str, *, model: str | None = None, local_only: bool = False
) -> ModelSource:
    """The model that `made`, a cache or lenses, was made with; `record` is what that keeps of it.

    It is looked for where the record says, at its revision, or at `model` where that is named. Raises `RequestError`
    when it is not there, or has other weights.
    """
    name = model or record.id
    try:
        source = find(name, None if model else record.revision, local_only=local_only)
    except RequestError as error:
        hint = "" if model else f"; {made} was made with it: say with --model where it is now"
        raise RequestError(f"{error}{hint}") from None
    if source.record.weights_sha256 != record.weights_sha256:
        at = f" at {record.revision}" if record.revision else ""
        raise RequestError(
            f"{name} has other weights than the model of {made} ({record.id}{at}): say with --model where that is"
        )
    return source


def _locate(model: str, revision: str | None, local_only: bool) -> tuple[Path, str | None]:
    if model == "demo":
        return demo.MODEL, None
    if Path(model).exists():
        if not (Path(model) / "config.json").is_file():
            raise RequestError(
                f"{model} is no model directory: it has no config.json; give a Hugging Face directory, a hub id, or `demo`"
            )
        return Path(model), None
    if not hub.looks_like_id(model):
        raise RequestError(f"{model} does not exist: give a Hugging Face directory, a hub id, or `demo`")
    return hub.snapshot(model, kind="model", revision=revision, patterns=FILES, local_only=local_only)


def _config(folder: Path) -> Any:
    with importing():
        from transformers import AutoConfig

    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise RequestError(
            f"{folder / 'config.json'} is no model configuration: {str(error).splitlines()[0]}"
        ) from None
    if not config.architectures:
        raise RequestError(
            f"{folder / 'config.json'} names no architecture: add `architectures`, for example GPT2LMHeadModel"
        )
    return config


def _numbers(config: Any, folder: Path) -> dict[str, Any]:
    text = config.get_text_config()
    try:
        heads, d_model = int(text.num_attention_heads), int(text.hidden_size)
        return {
            "n_layers": int(text.num_hidden_layers),
            "n_heads": heads,
            "d_head": int(getattr(text, "head_dim", None) or d_model // heads),
            "d_model": d_model,
            "d_vocab": int(text.vocab_size),
            "n_ctx": int(text.max_position_embeddings),
        }
    except AttributeError as error:
        raise RequestError(
            f"{folder / 'config.json'} is not a causal transformer with attention heads: {error}"
        ) from None


def _weights_sha256(files: list[Path]) -> str:
    """Over the tensors, not the files: the same weights in other shards are the same model."""
    from safetensors import SafetensorError, safe_open

    hashes: dict[str, str] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                hashes.update(
                    {name: _tensor_sha256(tensors.get_tensor(name)) for name in list(tensors.keys())}
                )
        except (SafetensorError, OSError) as error:
            raise RequestError(f"{file} is no readable safetensors file: {error}") from None
    lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def _tensor_sha256(tensor: torch.Tensor) -> str:
    head = f"{tensor.dtype} {tuple(tensor.shape)}\n".encode()
    digest = hashlib.sha256(head)
    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_tokenizer(source: ModelSource) -> tuple[Any, int | None]:
    """The `tokenizers` tokenizer of a model, and its end-of-text token. Raises `RequestError`."""
    with importing():
        from transformers import AutoTokenizer

    try:
        with quiet():
            fast = AutoTokenizer.from_pretrained(
                source.folder, local_files_only=True, trust_remote_code=False
            )
        tokenizer = fast.backend_tokenizer
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise RequestError(
            f"cannot load the tokenizer in {source.folder}: {str(error).splitlines()[0]}"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if tokenizer.get_vocab_size() > source.record.d_vocab:
        raise RequestError(
            f"the tokenizer in {source.folder} has {tokenizer.get_vocab_size()} tokens, the model {source.record.d_vocab}: they do not belong together"
        )
    return tokenizer, fast.eos_token_id


def load(source: ModelSource, *, dtype: str, device: str) -> Subject:
    """Load the model, frozen, on `device` (`cpu`, `cuda`, `cuda:1`). Raises `RequestError`."""
    where = torch_device(device)
    tokenizer, end_of_text = load_tokenizer(source)
    try:
        with quiet():
            with importing():
                from transformer_lens import TransformerBridge
                from transformers import AutoModelForCausalLM

            model: Any = AutoModelForCausalLM.from_pretrained(
                source.folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="eager",
            )
            bridge: Any = TransformerBridge.boot_transformers(
                str(source.folder),
                hf_model=model.to(where).eval().requires_grad_(False),
                dtype=getattr(torch, dtype),
                device=str(where),
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise RequestError(
            f"cannot load {source.record.architecture} from {source.folder}: {str(error).splitlines()[0]}"
        ) from error
    return Subject(
        source=source,
        bridge=bridge.requires_grad_(False),
        tokenizer=tokenizer,
        end_of_text=end_of_text,
        W_O_LHED=bridge.W_O.detach(),
        W_U_DV=bridge.W_U.detach(),
        b_U_V=bridge.b_U.detach(),
        device=where,
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' progress bars and advice out of logs; errors still raise. Afterwards all is as it was."""
    from transformers.utils import logging as transformers_logging

    deepspeed = logging.getLogger("DeepSpeed")
    before, verbosity = deepspeed.level, transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    deepspeed.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        deepspeed.setLevel(before)
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
