"""Numbers show what the loaded model computes, whatever it is called."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from alens import CacheRequest, write_cache
from alens.cache.recompute import recompute
from alens.cache.request import RecomputeRequest
from alens.errors import RequestError
from alens.model import models
from alens.model.examine import examine, examine_again
from alens.model.last_norm import last_norm
from alens.model.models import LoadedModel
from alens.store.model_record import NormRecord
from alens.store.schema import CacheSettings

from .families import FAMILIES, GATED, SIZE, TOKENS, save

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt-j": ("GPTJConfig", {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, "rotary_dim": 4, **TOKENS}),
    "gemma": ("GemmaConfig", {**GATED, "head_dim": 8}),
    "granite without a factor": ("GraniteConfig", GATED),
    "granite": ("GraniteConfig", {**GATED, "residual_multiplier": 0.22}),
    "olmo-2": ("Olmo2Config", GATED),
    "olmo-3": ("Olmo3Config", {**GATED, "sliding_window": 8}),
    "gemma-2": ("Gemma2Config", {**GATED, "head_dim": 8, "final_logit_softcapping": None}),
    "gemma-3": ("Gemma3TextConfig", {**GATED, "head_dim": 8}),
    "glm-4": ("Glm4Config", {**GATED, "head_dim": 8, "pad_token_id": 0}),
    "exaone-4": ("Exaone4Config", {**GATED, "sliding_window": 8}),
}  # fmt: skip
WRITE = {
    **dict.fromkeys(("gpt2", "gpt-neox", "opt", "llama", "gpt-j", "gemma", "granite without a factor"), "exact"),
    **dict.fromkeys(("olmo-2", "olmo-3", "gemma-2", "gemma-3", "glm-4", "exaone-4"), "normed"),
    "granite": "folded",
}  # fmt: skip

SETTINGS = CacheSettings(seq_len=16, rows_per_shard=64, max_rows=128, batch_size=2, top_k=8, tail_samples=4)


def request(model: Path, store: Path) -> CacheRequest:
    return CacheRequest(model=str(model), corpus="demo", store=store, settings=SETTINGS, device="cpu")


def test_a_model_that_looks_ahead_is_refused_before_the_plan(tmp_path: Path) -> None:
    options = {**SIZE, "max_position_embeddings": 64, "intermediate_size": 64, "initializer_range": 0.2}
    model = save(tmp_path / "bert", "BertConfig", options, kind="BertForMaskedLM")
    with pytest.raises(
        RequestError, match=r"^BertForMaskedLM is not causal: .* give a causal language model$"
    ):
        write_cache(request(model, tmp_path / "store"))
    assert not (tmp_path / "store" / "plan.json").exists()


def test_a_model_that_the_bridge_cannot_run_is_refused_in_a_line(tmp_path: Path) -> None:
    options = {**FAMILIES["opt"].options, "do_layer_norm_before": False}  # the norm last, as OPT-350m has it
    model = save(tmp_path / "opt", "OPTConfig", options)
    with pytest.raises(
        RequestError, match=r"^TransformerLens cannot run OPTForCausalLM from .*final_layer_norm"
    ) as caught:
        write_cache(request(model, tmp_path / "store"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a family's model, made once."""
    root = tmp_path_factory.mktemp("examined")

    def make(name: str) -> Path:
        config, options = OTHERS[name] if name in OTHERS else (FAMILIES[name].config, FAMILIES[name].options)
        return root / name if (root / name).exists() else save(root / name, config, options)

    return make


def loaded(folder: Path, dtype: str = "float32") -> LoadedModel:
    return models.load(models.find(str(folder)), dtype=dtype, device="cpu")


def some_tokens() -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, 4000, (2, 16))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(WRITE))
def test_what_heads_write_is_told_by_numbers(made: Callable[[str], Path], name: str, dtype: str) -> None:
    record = examine(loaded(made(name), dtype), some_tokens(), None)
    assert record.head_write == WRITE[name]
    assert record.no_write is None and record.keeps_write_scale == (WRITE[name] == "normed")
    assert record.final_norm is not None and record.final_norm.is_known


def test_a_layer_that_is_not_cached_does_not_matter(made: Callable[[str], Path]) -> None:
    model = loaded(made("llama"))
    with torch.no_grad():
        model.W_O_LHED[1].mul_(2)  # as if layer 1 had a factor behind its attention
    assert examine(model, some_tokens(), [0]).head_write == "exact"
    assert examine(model, some_tokens(), [0, 1]).head_write == "other"


def test_the_gain_of_gemma_is_one_more_than_its_weight(made: Callable[[str], Path]) -> None:
    model = loaded(made("gemma"))
    weight_D = load_file(made("gemma") / "model.safetensors")["model.norm.weight"]
    assert model.final_norm is not None and model.final_norm.record == NormRecord(kind="rms", epsilon=1e-6)
    torch.testing.assert_close(model.final_norm.gain_D, 1 + weight_D)


def test_a_last_norm_of_another_kind_is_known_as_such(made: Callable[[str], Path]) -> None:
    class Squashed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x)

    squashed = SimpleNamespace(ln_final=SimpleNamespace(original_component=Squashed()))
    assert last_norm(squashed, 32) is None
    record = examine(dataclasses.replace(loaded(made("llama")), final_norm=None), some_tokens(), None)
    assert record.no_write == "the last norm of LlamaForCausalLM is neither a layer norm nor an RMS norm"
    assert not record.keeps_norm


@pytest.mark.parametrize("name", ["granite", "olmo-2"])
def test_a_cache_that_does_not_know_the_write_says_it_and_z_is_as_ever(
    made: Callable[[str], Path],
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alens.model.examine.head_write", lambda *_: "other")  # as an earlier alens had it
    cache = write_cache(request(made(name), tmp_path / "store")).cache
    assert (cache.sealed, cache.plan.model.head_write) == (True, "other")
    (line,) = caplog.messages
    assert "ForCausalLM has a norm or a factor behind its attention, so z W_O is not what a head" in line
    with pytest.raises(RequestError, match=r"gives no head outputs: \w+ has a norm or a factor .*; take z$"):
        cache.head_outputs(slice(0, 4))
    assert cache.z(0, slice(0, 4)).shape == (4, 4, 8)
    assert recompute(cache, RecomputeRequest(rows=16, device="cpu")).agrees
    monkeypatch.undo()
    model = loaded(made(name))
    np.testing.assert_array_equal(cache.weights("W_O"), model.plain_W_O_LHED.numpy())  # as it was
    examine_again(model, cache.tokens, cache.plan, cache.root)  # a job of this alens goes on with it


def test_a_later_job_whose_model_writes_otherwise_is_refused(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    model, cache = loaded(made("llama")), write_cache(request(made("llama"), tmp_path / "store")).cache
    examine_again(model, cache.tokens, cache.plan, cache.root)
    with torch.no_grad():
        model.W_O_LHED.mul_(2)
    with pytest.raises(RequestError, match="begun with another model: its head write is exact, here other;"):
        examine_again(model, cache.tokens, cache.plan, cache.root)
    before = dataclasses.replace(cache.plan, model=model.source.record)
    examine_again(model, cache.tokens, before, cache.root)  # an earlier alens did not examine
