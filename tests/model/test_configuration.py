import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from alens import demo
from alens.errors import RequestError
from alens.model import configuration, models
from alens.model.libraries import quiet

GPT2 = json.loads((demo.MODEL / "config.json").read_text())
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "rope_parameters": {"rope_theta": 50000.0, "rope_type": "default"},
}
"""A configuration as transformers 5 writes it, without defaults."""


@pytest.fixture
def canonical(tmp_path: Path) -> Any:
    def read(settings: dict[str, Any]) -> dict[str, Any]:
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with quiet():
            return configuration.canonical(configuration.read(tmp_path))

    return read


def test_the_fewest_settings_are_kept(canonical: Any) -> None:
    assert canonical(GPT2) == {
        "model_type": "gpt2",
        "vocab_size": 4096,
        "n_positions": 256,
        "n_embd": 192,
        "n_layer": 4,
        "n_head": 6,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"_name_or_path": "/elsewhere", "transformers_version": "4.9.0", "torch_dtype": "bfloat16"},
        {"use_cache": False, "eos_token_id": 3, "attn_pdrop": 0.5, "initializer_range": 1.0},
        {"max_length": 20, "do_sample": True, "summary_type": "last", "id2label": {"0": "a"}},
        {"scale_attn_weights": True, "reorder_and_upcast_attn": False},
        {"made_with": "/home/somebody/train.py", "license_file": "~/license"},
    ],
)
def test_what_has_no_effect_leaves_the_model_the_same(canonical: Any, changes: dict[str, Any]) -> None:
    assert canonical(GPT2 | changes) == canonical(GPT2)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"activation_function": "relu"}, {"activation_function": "relu"}),
        ({"layer_norm_epsilon": 1e-6}, {"layer_norm_epsilon": 1e-6}),
        ({"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_by_inverse_layer_idx": True}),
        ({"tie_word_embeddings": False}, {"tie_word_embeddings": False}),
        ({"nobody_knows": 1}, {"nobody_knows": 1}),
        ({"pad_token_id": 5}, {"pad_token_id": 5}),
    ],
)
def test_what_changes_the_function_or_is_unknown_counts(
    canonical: Any, changes: dict[str, Any], counts: dict[str, Any]
) -> None:
    assert canonical(GPT2 | changes) == canonical(GPT2) | counts


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": None, "rope_theta": 50000.0, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 50000.0}},
        {"head_dim": 16, "num_key_value_heads": 4, "mlp_bias": False, "rms_norm_eps": 1e-06},
    ],
)
def test_the_same_settings_in_other_words_are_the_same(canonical: Any, changes: dict[str, Any]) -> None:
    """Older names of settings, defaults that are written out, and settings that transformers derives from others."""
    settings = {name: value for name, value in (LLAMA | changes).items() if value is not None}
    assert canonical(settings) == canonical(LLAMA)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_theta": 40000.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 50000.0, "rope_type": "linear", "factor": 2.0}},
        {"head_dim": 32},
        {"num_key_value_heads": 2},
        {"rms_norm_eps": 1e-5},
    ],
)
def test_another_rotation_width_or_norm_is_another_model(canonical: Any, changes: dict[str, Any]) -> None:
    assert canonical(LLAMA | changes) != canonical(LLAMA)


def test_a_configuration_within_a_configuration_is_shortened_too(canonical: Any) -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 64, "head_dim": 32}
    whole = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3", "text_config": text}
    assert canonical(whole)["text_config"] == {**text, "head_dim": 32}
    other = {**whole, "text_config": {**text, "rms_norm_eps": 1e-3}}
    assert canonical(other)["text_config"] == {**text, "rms_norm_eps": 1e-3}
    same = {**whole, "text_config": {**text, "attention_dropout": 0.5}}
    assert canonical(same) == canonical(whole)


CANNOT_BE: list[tuple[dict[str, Any], str]] = [
    ({"n_head": 0}, "num_attention_heads is 0: input should be greater than or equal to 1"),
    ({"n_layer": -3}, "num_hidden_layers is -3: input should be greater than or equal to 1"),
    ({"n_layer": 10**7}, "num_hidden_layers is 10000000: input should be less than or equal to 10000"),
    ({"n_embd": 10**30}, "hidden_size is 10{30}: input should be less than"),
    ({"n_embd": 3}, "6 heads share 3 numbers"),
    ({"n_head": "six"}, "n_head"),
    ({"vocab_size": None}, "vocab_size"),
    ({"n_positions": [1]}, "n_positions"),
    ({"bos_token_id": False}, "bos_token_id"),
    ({"architectures": [[0]]}, "names no architecture"),
    ({"architectures": "GPT2LMHeadModel"}, "architectures"),
    ({"summary_proj_to_labels": "x" * 100_000}, "summary_proj_to_labels"),
    ({"model_type": 5}, ""),
]


@pytest.mark.parametrize(
    ("changes", "message"), CANNOT_BE, ids=[str(next(iter(c.items())))[:40] for c, _ in CANNOT_BE]
)
def test_a_configuration_that_cannot_be_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = Path(shutil.copytree(demo.MODEL, tmp_path / "model"))
    (folder / "config.json").write_text(json.dumps({**GPT2, **changes}))
    with pytest.raises(RequestError, match=rf"config\.json .*{message}") as refused:
        models.find(str(folder))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000 + "]" * 100_000, "[]", "null", "5", "", '{"n_head": 1', "\x00"]
)
def test_a_configuration_that_is_not_an_object_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    folder = Path(shutil.copytree(demo.MODEL, tmp_path / "model"))
    (folder / "config.json").write_text(text)
    with pytest.raises(RequestError, match=r"config\.json is not a model configuration") as refused:
        models.find(str(folder))
    assert "\n" not in str(refused.value)
