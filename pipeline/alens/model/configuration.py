"""`config.json` of a model directory, or what a GGUF file says instead, and what a model's record keeps of it.

In: a directory or a GGUF file. Out: transformers' configuration; the sizes of the model, checked to be possible; and the settings that
decide what the model computes.
"""

import copy
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.model import gguf_file
from alens.model.libraries import importing, quiet, refusing
from alens.sources.lfs import check_fetched
from alens.store import typed
from alens.store.typed import STRICT, Count, Layers, Vocabulary, Width


def file(folder: Path) -> Path:
    """Where the configuration of a model directory, or of a GGUF file, stands."""
    return folder if gguf_file.is_gguf(folder) else folder / "config.json"


def read(folder: Path) -> Any:
    """The configuration of a model directory or a GGUF file, as transformers reads it. Raises `RequestError`."""
    if gguf_file.is_gguf(folder):
        status = folder.stat()
        return copy.deepcopy(_of_gguf(folder, status.st_mtime_ns, status.st_size))
    check_fetched(folder / "config.json")
    config = _read(folder)
    named = config.architectures
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise RequestError(
            f"{folder / 'config.json'} names no architecture: add `architectures`, for example GPT2LMHeadModel"
        )
    return config


def _read(folder: Path) -> Any:
    with importing():
        from transformers import AutoConfig

    with refusing(f"{file(folder)} is not a model configuration"), quiet(), gguf_file.named(folder) as where:
        return AutoConfig.from_pretrained(**where, local_files_only=True, trust_remote_code=False)


@functools.lru_cache(maxsize=1)
def _of_gguf(path: Path, mtime_ns: int, size: int) -> Any:
    """The configuration in a GGUF file, read once: transformers makes an object of each token of the vocabulary."""
    config = _read(path)
    gguf_file.complete(config, path)
    return config


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """The sizes in a configuration, by transformers' names."""

    __pydantic_config__ = STRICT

    num_hidden_layers: Layers
    num_attention_heads: Width
    hidden_size: Width
    vocab_size: Vocabulary
    longest: Count
    """The longest sequence in tokens; configurations have several names for it (`LENGTHS`)."""
    head_dim: Width | None = None


def quantised(config: Any) -> str | None:
    """How the weights are packed, by config.json; None where it does not say that they are."""
    settings = getattr(config, "quantization_config", None) or getattr(config, "compression_config", None)
    if settings is None:
        return None
    plain = settings if isinstance(settings, dict) else settings.to_dict()
    method = plain.get("quant_method") or "by its config.json"
    return str(getattr(method, "value", method))


LENGTHS = ("max_position_embeddings", "max_seq_len", "seq_length", "n_positions")
"""The names that configurations have for the longest sequence."""

NO_LIMIT = 2**20
"""The longest sequence, in tokens, of a model whose configuration names none (BLOOM, with ALiBi)."""

NEEDED = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")


def sizes(config: Any, folder: Path) -> dict[str, Any]:
    """Layers, heads and widths, by their names in `ModelRecord`. Raises `RequestError` for sizes that cannot be."""
    path, name = file(folder), config.architectures[0]
    if getattr(config, "is_encoder_decoder", False):
        raise RequestError(
            f"{name} in {folder} has an encoder and a decoder: alens reads models that predict the next token from the "
            "tokens before it; give a causal language model"
        )
    try:
        text = config.get_text_config()
        values = {field: getattr(text, field) for field in NEEDED}
    except AttributeError as error:
        lacks = getattr(error, "name", None) or str(error)
        raise RequestError(
            f"{path} of {name} says no {lacks}: alens reads attention heads, of which some models have none (Mamba, RWKV)"
        ) from None
    values |= {
        "head_dim": value_width(text) or getattr(text, "head_dim", None) or None,
        "longest": _longest(text),
    }
    if (what := typed.wrong(_Sizes, values)) is not None:
        raise RequestError(f"{path} is not a model configuration: {what}")
    read = _Sizes(**values)
    d_head = read.head_dim or read.hidden_size // read.num_attention_heads
    if not d_head:
        raise RequestError(
            f"{path} is not a model configuration: {read.num_attention_heads} heads share {read.hidden_size} numbers"
        )
    return {
        "n_layers": read.num_hidden_layers,
        "n_heads": read.num_attention_heads,
        "d_head": d_head,
        "d_model": read.hidden_size,
        "d_vocab": read.vocab_size,
        "n_ctx": read.longest,
    }


def value_width(text: Any) -> int | None:
    """How many numbers z of a head has by a configuration with latent attention (DeepSeek), where keys have others."""
    return getattr(text, "v_head_dim", None) or None


def _longest(text: Any) -> Any:
    """The longest sequence in tokens; a configuration says -1, or nothing, where there is no limit."""
    named = [value for value in (getattr(text, name, None) for name in LENGTHS) if value is not None]
    return NO_LIMIT if not named or named[0] == -1 else named[0]


NO_EFFECT = frozenset(
    {
        # Names, places and versions.
        "_name_or_path", "name_or_path", "_model_name_or_path", "_commit_hash", "transformers_version",
        "architectures", "auto_map", "tokenizer_class", "model_max_length",
        # Chosen at every load: alens sets dtype and attention itself.
        "dtype", "torch_dtype", "_attn_implementation", "attn_implementation", "_attn_implementation_autoset",
        "_experts_implementation", "use_cache", "return_dict", "return_dict_in_generate", "output_attentions",
        "output_hidden_states", "torchscript", "gradient_checkpointing", "use_bfloat16",
        # Used when a model generates text; alens gives it tokens. `pad_token_id` is not here, because some models count
        # positions from it.
        "bos_token_id", "eos_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id", "prefix",
        # Used in training; alens runs models in evaluation mode, with weights from files.
        "initializer_range", "initializer_factor", "init_std", "attention_dropout", "hidden_dropout", "attn_pdrop",
        "embd_pdrop", "resid_pdrop", "resid_dropout", "embed_dropout", "dropout", "activation_dropout", "layerdrop",
        "attention_probs_dropout_prob", "hidden_dropout_prob", "ffn_dropout", "classifier_dropout",
        # Output heads other than the unembedding.
        "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params",
        "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
    }
)  # fmt: skip
"""Settings that do not change what a model computes from tokens. Every other setting counts, unknown ones too."""

_PLACE = re.compile(r"(?<![\w.:])[~/]|^[A-Za-z]:[\\/]|^file:")
"""A path of some machine, in a string."""


def canonical(config: Any) -> dict[str, Any]:
    """The settings that decide what the model computes: the fewest from which this configuration can be made again.

    Defaults that are written out, older names of settings, and what transformers derives from other settings are left
    out, so that the same model has the same settings when another version of transformers saved it.
    """
    from transformers import PreTrainedConfig

    whole = _effective(config.to_dict())
    fewest = dict(whole)
    for name in sorted(whole):
        if _made_of(type(config), fewer := _without(fewest, name)) == whole:
            fewest = fewer
    for name, value in fewest.items():
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            fewest[name] = canonical(part)
        elif isinstance(value, dict):  # such as rope_parameters
            for key in sorted(value):
                fewer = fewest | {name: _without(fewest[name], key)}
                if _made_of(type(config), fewer) == whole:
                    fewest[name] = fewer[name]
    return {"model_type": config.model_type, **fewest}


def _without(settings: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}


def _made_of(kind: Any, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The effective settings of a configuration made of `settings`; None where it cannot be made."""
    try:
        return _effective(kind.from_dict(copy.deepcopy(settings)).to_dict())
    except Exception:  # each class fails in its own way where a setting is missing
        return None


def _effective(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON values, without those that have no effect."""
    plain = json.loads(json.dumps(_with_effect(settings), default=str), parse_constant=str)
    return dict(plain)


def _with_effect(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            str(key): _with_effect(part)
            for key, part in value.items()
            if key not in NO_EFFECT and not (isinstance(part, str) and _PLACE.search(part))
        }
    return [_with_effect(part) for part in value] if isinstance(value, list | tuple) else value
