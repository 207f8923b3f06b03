"""Small random models of further kinds: mixtures of experts, hybrids that attend in some layers, latent attention."""

import dataclasses
from pathlib import Path
from typing import Any

from .families import GATED, save

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FOUR = {**GATED, "num_hidden_layers": 4}
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4, "layer_types": ["linear_attention", "full_attention"] * 2,
}  # fmt: skip
SHORT = {"layer_types": ["conv", "full_attention"] * 2}
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A model, its layers with heads, and the size of a head."""

    config: str
    options: dict[str, Any]
    layers: tuple[int, ...] = (0, 1)
    d_head: int = 8
    projection: str = "self_attn.o_proj"
    no_write: str | None = None
    """The line of `alens inject`, where z W_O is not all that a layer's attention part adds to the stream."""

    def save(self, folder: Path) -> Path:
        """One of these on disk."""
        return save(folder, self.config, self.options)


HALF = (1, 3)
KINDS = {
    # Mixtures of experts.
    "mixtral": Kind(config="MixtralConfig", options={**GATED, **LOCAL_EXPERTS}),
    "olmoe": Kind(config="OlmoeConfig", options={**GATED, "num_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": Kind(config="Qwen2MoeConfig", options={**GATED, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "qwen3-moe": Kind(config="Qwen3MoeConfig", options={**GATED, **EXPERTS, "head_dim": 16}, d_head=16),
    # Each head of gpt-oss has a sink beside the tokens, and every other layer a window.
    "gpt-oss": Kind(
        config="GptOssConfig",
        options={
            **GATED, **LOCAL_EXPERTS, "head_dim": 8, "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    # Hybrids.
    "jamba": Kind(
        config="JambaConfig",
        options={
            **FOUR, "num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
            "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4,
        },
        layers=HALF,
    ),
    "bamba": Kind(config="BambaConfig", options={**FOUR, **MAMBA, "attn_layer_indices": [1, 3]}, layers=HALF),
    "granite-hybrid": Kind(
        config="GraniteMoeHybridConfig",
        options={
            **FOUR, **MAMBA, **LOCAL_EXPERTS, "layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 32,
            "position_embedding_type": "nope",
        },
        layers=HALF,
    ),
    "lfm2": Kind(config="Lfm2Config", options={**FOUR, **SHORT}, layers=HALF, projection="self_attn.out_proj"),
    "lfm2-moe": Kind(
        config="Lfm2MoeConfig",
        options={**FOUR, **SHORT, **EXPERTS, "num_dense_layers": 1},
        layers=HALF,
        projection="self_attn.out_proj",
    ),
    "qwen3-next": Kind(
        config="Qwen3NextConfig",
        options={**FOUR, **LINEAR, **EXPERTS, "head_dim": 16, "shared_expert_intermediate_size": 32},
        layers=HALF,
        d_head=16,
    ),
    "qwen3.5": Kind(
        config="Qwen3_5TextConfig", options={**FOUR, **LINEAR, "head_dim": 16}, layers=HALF, d_head=16
    ),
    # In every layer a mixer beside the attention, both of which write into the stream.
    "falcon-h1": Kind(
        config="FalconH1Config",
        options={**GATED, **MAMBA, "head_dim": 8, "mamba_d_ssm": 64},
        no_write="FalconH1ForCausalLM has a norm or a factor behind its attention",
    ),
    "olmo-hybrid": Kind(
        config="OlmoHybridConfig",
        options={**FOUR, **LINEAR, "pad_token_id": 0},
        layers=HALF,
    ),
    # Latent attention: keys have 12 numbers (8 and 4), values 12, and DeepSeek's head_dim says 4.
    "deepseek-v2": Kind(
        config="DeepseekV2Config", options={**GATED, **LATENT, "topk_method": "greedy"}, d_head=12
    ),
    "deepseek-v3": Kind(config="DeepseekV3Config", options={**GATED, **LATENT, "v_head_dim": 10}, d_head=10),
}  # fmt: skip
