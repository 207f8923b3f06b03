"""A tiny Llama as a GGUF file of mixed types, written as llama.cpp's converter writes it, and the same unpacked."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from alens import demo

from .families import GATED, save

NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
Q = gguf.GGMLQuantizationType
TYPES = {"attn_q": Q.Q4_0, "attn_v": Q.Q4_1, "ffn_down": Q.F16, "token_embd": Q.F16}
"""How tensors are packed; others as `Q8_0`, and norms as `F32`."""


def _turned(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows of queries or keys in the order of llama.cpp, whose rotary positions pair neighbours."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _turned_back(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write(file: Path, plain: Path, **fields: Any) -> Path:
    """`file`, and the directory `plain` with the same weights in float32 as safetensors. `fields` are further ones."""
    save(plain, "LlamaConfig", {**GATED, "rms_norm_eps": 1e-5})
    unpacked = load_file(plain / "model.safetensors")
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(2)
    writer.add_context_length(GATED["max_position_embeddings"])
    writer.add_embedding_length(GATED["hidden_size"])
    writer.add_feed_forward_length(GATED["intermediate_size"])
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(GATED["vocab_size"])
    tokenizer = json.loads((demo.MODEL / "tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(tokenizer["vocab"]))
    writer.add_token_types([3] + [1] * (len(tokenizer["vocab"]) - 1))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, value in fields.items():
        writer.add_string(name.replace("__", "."), value)

    def put(name: str, ours: str, heads: int = 0) -> None:
        kind = TYPES.get(name.split(".")[-1], Q.F32 if "norm" in name else Q.Q8_0)
        weight = _turned(unpacked[ours], heads) if heads else unpacked[ours]
        packed = gguf.quants.quantize(weight, kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
        back = gguf.quants.dequantize(packed, kind).astype(np.float32)
        unpacked[ours] = np.ascontiguousarray(_turned_back(back, heads) if heads else back)

    put("token_embd", "model.embed_tokens.weight")
    put("output_norm", "model.norm.weight")
    put("output", "lm_head.weight")
    for layer in range(2):
        for name, ours in NAMES.items():
            heads = {"attn_q": 4, "attn_k": 2}.get(name, 0)
            put(f"blk.{layer}.{name}", f"model.layers.{layer}.{ours}.weight", heads)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(unpacked, plain / "model.safetensors", {"format": "pt"})
    return file
