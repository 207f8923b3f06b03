"""`config.json` of a model directory: what a record keeps of it.

In: a directory. Out: transformers' configuration, and from it the sizes of the model.
"""

import json
from pathlib import Path
from typing import Any

from alens.cache.quiet import quiet
from alens.errors import RequestError
from alens.importing import importing


def read(folder: Path) -> Any:
    """The configuration, as transformers reads it. Raises `RequestError`."""
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


def sizes(config: Any, folder: Path) -> dict[str, Any]:
    """Layers, heads and widths, by their names in `ModelRecord`. Raises `RequestError`."""
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
