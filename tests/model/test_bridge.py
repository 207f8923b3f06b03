"""Models that alens cannot read are refused in one line, before anything is written; hybrids have each layer's own W_O."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import CacheRequest, demo, write_cache
from alens.errors import RequestError
from alens.model import bridge, models, pretrained
from alens.model.libraries import first_line, refusing
from alens.store.cache_reader import Cache
from alens.store.model_record import EXACT_WRITE
from alens.store.schema import CacheSettings

from .families import FAMILIES, GATED, SIZE, save
from .kinds import FOUR, KINDS, LOCAL_EXPERTS, SHORT

HYBRID = {**FOUR, **SHORT}
MAMBA = {"num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 4096, "state_size": 4}
REFUSED = {
    "opt-350m": (
        "OPTConfig",
        {**FAMILIES["opt"].options, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        "the unembedding of OPTForCausalLM is 16 x 4096, and its residual stream and vocabulary make it 32 x 4096: a model "
        "that projects its residual stream before the unembedding is not supported",
    ),
    "zamba2": (
        "Zamba2Config",
        {**FOUR, "layers_block_type": ["mamba", "hybrid"] * 2, "num_mem_blocks": 1, "mamba_d_state": 8, "n_mamba_heads": 8,
         "mamba_headdim": 8, "mamba_ngroups": 1, "chunk_size": 8, "adapter_rank": 4, "num_key_value_heads": 4},
        "Zamba2ForCausalLM has no layer whose attention heads TransformerLens tells apart: alens needs them",
    ),
    "recurrent-gemma": (
        "RecurrentGemmaConfig",
        {**FOUR, "block_types": ["recurrent", "attention"], "lru_width": 32, "attention_window_size": 16, "head_dim": 8},
        "RecurrentGemmaForCausalLM has no layer whose attention heads TransformerLens tells apart: alens needs them",
    ),
    "nemotron-h": (
        "NemotronHConfig",
        {**FOUR, "layers_block_type": ["mamba", "attention", "moe", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 8,
         "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8, "head_dim": 8, "n_routed_experts": 4, "n_group": 1,
         "num_experts_per_tok": 2, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 32, "topk_group": 1},
        "NemotronHForCausalLM has no layer whose attention heads TransformerLens tells apart: alens needs them",
    ),
    "jetmoe": (
        "JetMoeConfig",
        {"num_hidden_layers": 2, "hidden_size": 32, "num_key_value_heads": 2, "kv_channels": 8, "vocab_size": 4096,
         "intermediate_size": 32, "num_local_experts": 4},
        "W_O of layer 0 of JetMoeForCausalLM does not divide into",
    ),
    "bigcode": (
        "GPTBigCodeConfig",
        {**FAMILIES["gpt2"].options, "multi_query": False},
        "TransformerLens cannot take GPTBigCodeForCausalLM from FOLDER: GPTBigCodeArchitectureAdapter only supports",
    ),
    "phimoe": (
        "PhimoeConfig",
        {**GATED, **LOCAL_EXPERTS},
        "TransformerLens cannot take PhimoeForCausalLM from FOLDER: it does not know this model",
    ),
    "neox-japanese": (
        "GPTNeoXJapaneseConfig",
        {**SIZE, "max_position_embeddings": 64},
        "TransformerLens cannot take GPTNeoXJapaneseForCausalLM from FOLDER: it does not know this model",
    ),
    "mamba": (
        "MambaConfig",
        MAMBA,
        "FOLDER/config.json of MambaForCausalLM says no num_attention_heads: alens reads attention heads, of which some "
        "models have none (Mamba, RWKV)",
    ),
    "t5": (
        "T5Config",
        {"num_layers": 2, "num_heads": 4, "d_model": 32, "d_kv": 8, "d_ff": 64, "vocab_size": 4096},
        "T5ForConditionalGeneration in FOLDER has an encoder and a decoder: alens reads models that predict the next token",
    ),
}  # fmt: skip
NO_HEADS = "layer 2 of Lfm2ForCausalLM has no attention heads, layers 1,3 have: name these with --layers"
CODES = {
    "bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "gptq": {"bits": 4, "group_size": 32, "desc_act": False},
    "awq": {"bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"},
    "compressed-tensors": {"format": "pack-quantized", "config_groups": {}},
}


def write(model: Path, store: Path, **changes: Any) -> Cache:
    settings = CacheSettings(
        seq_len=16, rows_per_shard=64, max_rows=256, batch_size=2, top_k=8, tail_samples=4, **changes
    )
    return write_cache(
        CacheRequest(model=str(model), corpus="demo", store=store, settings=settings, device="cpu")
    ).cache


def refused_model(model: Path, store: Path) -> str:
    """The line of the refusal, after which nothing was written."""
    with pytest.raises(RequestError) as caught:
        write(model, store)
    assert not store.exists() or list(store.iterdir()) == []
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 500
    return str(caught.value).replace(str(model), "FOLDER")


@pytest.mark.parametrize("name", REFUSED)
def test_what_alens_cannot_read_is_one_line_before_anything_is_written(tmp_path: Path, name: str) -> None:
    config, options, message = REFUSED[name]
    kind = "T5ForConditionalGeneration" if name == "t5" else None
    model = save(tmp_path / "model", config, options, kind=kind)
    assert refused_model(model, tmp_path / "store").startswith(message)


def test_a_model_around_a_language_model_is_refused(tmp_path: Path) -> None:
    import transformers

    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 16, "patch_size": 8, "projection_dim": 16}  # fmt: skip
    options = {
        "text_config": {"model_type": "llama", **GATED},
        "vision_config": vision,
        "image_token_index": 5,
    }
    model = save(tmp_path / "model", "LlavaConfig", options, kind="LlavaForConditionalGeneration")
    assert transformers.AutoConfig.from_pretrained(model).model_type == "llava"
    assert refused_model(model, tmp_path / "store").startswith(
        "LlavaForConditionalGeneration in FOLDER is not a causal language model to transformers: where a language model is "
        "a part of it, as of one that sees images, load it and save_pretrained that part"
    )


# Quantised weights


def quantised(folder: Path, method: str, settings: dict[str, Any]) -> Path:
    save(folder, "LlamaConfig", GATED)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("method", CODES)
def test_quantised_weights_are_refused_and_no_library_is_asked_for(tmp_path: Path, method: str) -> None:
    model = quantised(tmp_path / "model", method, CODES[method])
    assert refused_model(model, tmp_path / "store").startswith(
        f"FOLDER is quantised ({method}): its weights are codes, and alens reads W_O and W_U as they are; give the model as "
        "it was before, or"
    )


def test_what_stays_packed_is_seen_in_the_loaded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever config.json says."""
    save(tmp_path / "model", "LlamaConfig", GATED)
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained

    def packed(*given: Any, **named: Any) -> Any:
        model, report = load(*given, **named)
        weight = model.model.layers[1].mlp.up_proj
        weight.weight = torch.nn.Parameter(weight.weight.to(torch.int8), requires_grad=False)
        return model, report

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", packed)
    assert "is quantised (model.layers.1.mlp.up_proj.weight is int8)" in refused_model(
        tmp_path / "model", tmp_path / "store"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there transformers keeps the weights packed: refused")
def test_weights_that_loading_unpacks_are_taken(tmp_path: Path) -> None:
    """fp8 on a CPU: the model that is run, and W_O, have the unpacked numbers."""
    model = quantised(
        tmp_path / "model", "fp8", {"activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    )
    weights = load_file(model / "model.safetensors")
    name = "model.layers.1.self_attn.o_proj.weight"
    packed = {n: v.to(torch.float8_e4m3fn) for n, v in weights.items() if "proj" in n}
    scales = {f"{n}_scale_inv": torch.full((1, 1), 2.0) for n in packed}
    save_file(weights | packed | scales, model / "model.safetensors", {"format": "pt"})
    W_O_FD = write(model, tmp_path / "store").weights("W_O")[1].reshape(32, 32)
    np.testing.assert_array_equal(W_O_FD.T, 2.0 * packed[name].float().numpy())
    assert np.abs(W_O_FD.T - 2.0 * weights[name].numpy()).max() > 1e-3


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="there transformers may keep the weights packed: refused"
)
def test_experts_in_mxfp4_are_unpacked(tmp_path: Path) -> None:
    """As gpt-oss is published: pairs of 4-bit codes, here of 1.0 and 2.0, under a power of two for each 32 numbers."""
    folder = KINDS["gpt-oss"].save(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inner, outer = weights.pop(name).shape
        weights[f"{name}_blocks"] = torch.full((experts, outer, inner // 32, 16), 0x42, dtype=torch.uint8)
        weights[f"{name}_scales"] = torch.full((experts, outer, inner // 32), 126, dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    model = pretrained.load(folder, torch.float32)
    for layer in model.model.layers:
        assert set(layer.mlp.experts.down_proj.flatten().tolist()) == {0.5, 1.0}


# Hybrids


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LFM2: attention in layers 1 and 3 of 4."""
    return save(tmp_path_factory.mktemp("hybrid") / "model", "Lfm2Config", HYBRID)


@pytest.mark.parametrize("layers", [(3,), None])
def test_of_a_hybrid_each_layer_has_its_own_output_matrix(
    hybrid: Path, tmp_path: Path, layers: tuple[int, ...] | None
) -> None:
    """TransformerLens has two matrices, so that of layer 3 stood in place 1, and there was no place 3."""
    cache = write(hybrid, tmp_path / "store", layers=layers)
    assert (cache.plan.layers, cache.plan.model.attention_layers) == (layers or (1, 3), (1, 3))
    assert cache.plan.model.head_write == EXACT_WRITE
    weights = load_file(hybrid / "model.safetensors")
    for layer in (1, 3):
        W_O_FD = weights[f"model.layers.{layer}.self_attn.out_proj.weight"].T.numpy()
        np.testing.assert_array_equal(cache.weights("W_O")[layer].reshape(32, 32), W_O_FD)
    assert not cache.weights("W_O")[[0, 2]].any()
    model = models.load(models.find(str(hybrid)), dtype="float32", device="cpu")
    assert bridge.attention_layers(model.bridge) == (1, 3)


def test_a_layer_without_heads_is_refused(hybrid: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        write(hybrid, tmp_path / "store", layers=(1, 2))
    assert str(caught.value) == NO_HEADS
    assert not (tmp_path / "store").exists() or list((tmp_path / "store").iterdir()) == []


# What libraries say


def test_a_long_message_is_cut_and_an_empty_one_is_its_kind() -> None:
    assert first_line(ValueError("a line that is long\ntwo")) == "ValueError: a line that is long"
    assert first_line(ValueError("x" * 1000)) == "x" * 200 + " ..."
    assert first_line(AssertionError()) == "AssertionError"
    assert first_line(KeyError("lm_head")) == "KeyError: 'lm_head'"


def test_memory_that_lacks_is_not_the_models_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    def lack(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lack)
    with pytest.raises(torch.OutOfMemoryError):
        pretrained.load(demo.MODEL, torch.float32)
    with pytest.raises(MemoryError), refusing("anything"):
        raise MemoryError
