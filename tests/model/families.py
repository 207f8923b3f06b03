"""Small random models of several families: the names of their parts in transformers, and one of each on disk."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from alens import demo

SIZE = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "vocab_size": 4096}
TOKENS = {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}
GATED = {**SIZE, **TOKENS, "intermediate_size": 64, "num_key_value_heads": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """The names that transformers gives to the parts of a family's blocks."""

    config: str
    options: dict[str, Any]
    layers: str
    projection: str
    mlp: str
    norm: str
    """The last one."""
    scale: float = 1.0
    """What the logits are multiplied by."""
    cap: float | None = None
    """The model's logit cap."""
    behind: str | None = None
    """The norm behind attention, where there is one."""
    factor: float = 1.0
    """What the block multiplies attention and MLP with."""


GATED_NAMES = {"layers": "model.layers", "projection": "self_attn.o_proj", "mlp": "mlp", "norm": "model.norm"}
FAMILIES = {
    "gpt2": Family(
        config="GPT2Config",
        options={"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 4096, "n_positions": 64, **TOKENS},
        layers="transformer.h",
        projection="attn.c_proj",
        mlp="mlp",
        norm="transformer.ln_f",
    ),
    "gpt-neox": Family(
        config="GPTNeoXConfig",
        options={**SIZE, **TOKENS, "intermediate_size": 64},
        layers="gpt_neox.layers",
        projection="attention.dense",
        mlp="mlp",
        norm="gpt_neox.final_layer_norm",
    ),
    "opt": Family(
        config="OPTConfig",
        options={**SIZE, **TOKENS, "ffn_dim": 64, "word_embed_proj_dim": 32, "pad_token_id": 1, "init_std": 0.2},
        layers="model.decoder.layers",
        projection="self_attn.out_proj",
        mlp="fc2",
        norm="model.decoder.final_layer_norm",
    ),
    # Fewer keys and values than heads.
    "llama": Family(config="LlamaConfig", options=GATED, **GATED_NAMES),
    "mistral": Family(config="MistralConfig", options={**GATED, "sliding_window": 8}, **GATED_NAMES),
    # Positions by ALiBi: no longest sequence is named.
    "bloom": Family(
        config="BloomConfig",
        options={"n_layer": 2, "n_head": 4, "hidden_size": 32, "vocab_size": 4096, "initializer_range": 0.2},
        layers="transformer.h",
        projection="self_attention.dense",
        mlp="mlp.dense_4h_to_h",
        norm="transformer.ln_f",
    ),
    "mpt": Family(
        config="MptConfig",
        options={"n_layers": 2, "n_heads": 4, "d_model": 32, "vocab_size": 4096, "max_seq_len": 64, "initializer_range": 0.2},
        layers="transformer.blocks",
        projection="attn.out_proj",
        mlp="ffn.down_proj",
        norm="transformer.norm_f",
    ),
    # Heads wider than d_model / heads, and one matrix for embedding and unembedding.
    "qwen3": Family(
        config="Qwen3Config", options={**GATED, "head_dim": 16, "tie_word_embeddings": True}, **GATED_NAMES
    ),
}  # fmt: skip

BEHIND_NAMES = {**GATED_NAMES, "mlp": "post_feedforward_layernorm", "behind": "post_attention_layernorm"}
FACTORS = {
    "gemma2": Family(
        config="Gemma2Config",
        options={**GATED, "head_dim": 8, "final_logit_softcapping": 4.0, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 3,
                 "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
        cap=4.0,
        **BEHIND_NAMES,
    ),
    "granite": Family(
        config="GraniteConfig",
        options={**GATED, "logits_scaling": 0.3, "residual_multiplier": 0.22, "embedding_multiplier": 3.0, "attention_multiplier": 0.7},
        scale=1 / 0.3,
        factor=0.22,
        **GATED_NAMES,
    ),
    "cohere": Family(config="CohereConfig", options={**GATED, "logit_scale": 3.0, "pad_token_id": 0}, scale=3.0, **GATED_NAMES),
    "cohere2": Family(
        config="Cohere2Config",
        options={**GATED, "head_dim": 8, "logit_scale": 0.7, "pad_token_id": 0, "sliding_window": 8,
                 "layer_types": ["sliding_attention", "full_attention"]},
        scale=0.7,
        **GATED_NAMES,
    ),
    "nanochat": Family(config="NanoChatConfig", options={**GATED, "final_logit_softcapping": 4.0, "pad_token_id": 0}, cap=4.0, **GATED_NAMES),
    "gemma3": Family(
        config="Gemma3TextConfig",
        options={**GATED, "head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 8, "query_pre_attn_scalar": 3,
                 "layer_types": ["sliding_attention", "full_attention"]},
        cap=2.0,
        **BEHIND_NAMES,
    ),
    "olmo2": Family(config="Olmo2Config", options=GATED, **BEHIND_NAMES),
}  # fmt: skip
"""Models with a factor or a cap on their logits, a norm behind their attention, or a factor on it."""


def save(folder: Path, config: str, options: dict[str, Any], *, kind: str | None = None) -> Path:
    """A random model with the demo's tokenizer; norms and biases are not what they start as.

    `kind` is the class of transformers, default the causal language model of the configuration.
    """
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    made = getattr(transformers, config)(**options)
    model = getattr(transformers, kind)(made) if kind else transformers.AutoModelForCausalLM.from_config(made)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    for file in demo.MODEL.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder
