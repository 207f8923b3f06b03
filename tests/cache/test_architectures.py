"""Small random models of several families, each cached, against plain transformers and hooks on its modules."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch

from alens import CacheRequest, FitRequest, fit_lenses, write_cache
from alens.fit.settings import FitSettings
from alens.rows.final_norm import FinalNorm
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings

from ..model.families import FACTORS, FAMILIES, Family, save

Array = npt.NDArray[np.float32]

SETTINGS = CacheSettings(
    seq_len=16,
    rows_per_shard=64,
    max_rows=256,
    batch_size=2,
    top_k=8,
    tail_samples=4,
    exact_teacher=True,
    sites=("resid_post", "mlp_out"),
)
ALL = FAMILIES | FACTORS
SLOW = {"cohere2", "gemma2", "gemma3", "nanochat", "olmo2"}
"""Families of which a sister is here too, or that other tests have."""
NARROW = np.float16(2**-11)
"""How far a number may be from the float16 in which it is stored, as a share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """The cache of a family, and what plain transformers computes for its rows, in their order."""

    cache: Cache
    family: Family
    said: str
    """What was printed while the cache was written."""
    projected: list[tuple[Array, Array]]
    """For each layer, input and output of the attention's output projection, (N, H x E) and (N, D)."""
    added: list[Array]
    """What the block adds to the stream of its attention: behind the norm, times the factor."""
    biases: list[Array]
    """The bias of each output projection."""
    residuals: list[Array]
    mlps: list[Array]
    norm: tuple[Array, Array]
    """Input and output of the last norm."""
    log_probs_NV: Array
    unembedding_DV: Array


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")

    class Saved(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = save(root / name, ALL[name].config, ALL[name].options)
            return self[name]

    return Saved()


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Cache]:
    def write(model: Path) -> Cache:
        store = tmp_path_factory.mktemp("stores") / "store"
        request = CacheRequest(model=str(model), corpus="demo", store=store, settings=SETTINGS, device="cpu")
        return write_cache(request).cache

    return write


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(ALL)],
)
def case(
    request: pytest.FixtureRequest, models: dict[str, Path], write: Callable[[Path], Cache]
) -> Case:  # fmt: skip
    said, model = io.StringIO(), models[request.param]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        cache = write(model)
    return truth(cache, model, ALL[request.param], said.getvalue())


def truth(cache: Cache, folder: Path, family: Family, said: str) -> Case:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    kept: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, given: Any, made: Any) -> None:
            kept[name] = (given[0], made[0] if isinstance(made, tuple) else made)

        return hook

    layers = model.get_submodule(family.layers)
    for number, layer in enumerate(layers):
        layer.register_forward_hook(keep(f"layer {number}"))
        for part in ("projection", "mlp", "behind"):
            if (module := getattr(family, part)) is not None:
                layer.get_submodule(module).register_forward_hook(keep(f"{part} {number}"))
    model.get_submodule(family.norm).register_forward_hook(keep("norm"))
    with torch.inference_mode():
        logits_BTV = model.eval()(torch.from_numpy(cache.tokens.astype(np.int64))).logits
    rows = slice(None)
    place_N = cache.read("rows/sequence", rows).astype(int) * SETTINGS.seq_len
    place_N += cache.read("rows/position", rows)

    def ordered(value: torch.Tensor) -> Array:
        return value.reshape(len(place_N), -1)[place_N].float().numpy()

    projections = [layer.get_submodule(family.projection) for layer in layers]
    biases = [getattr(part, "bias", None) for part in projections]
    return Case(
        cache=cache,
        family=family,
        said=said,
        projected=[(ordered(kept[f"projection {i}"][0]), ordered(kept[f"projection {i}"][1])) for i in (0, 1)],
        added=[family.factor * ordered(kept[f"{'behind' if family.behind else 'projection'} {i}"][1]) for i in (0, 1)],
        biases=[np.zeros(32, np.float32) if b is None else b.detach().numpy() for b in biases],
        residuals=[ordered(kept[f"layer {i}"][1]) for i in (0, 1)],
        norm=(ordered(kept["norm"][0]), ordered(kept["norm"][1])),
        mlps=[family.factor * ordered(kept[f"mlp {i}"][1]) for i in (0, 1)],
        log_probs_NV=ordered(logits_BTV.log_softmax(-1)),
        unembedding_DV=model.get_output_embeddings().weight.detach().numpy().T,
    )  # fmt: skip


def assert_stored(stored: npt.NDArray[np.float16], expected: Array) -> None:
    """`stored` is `expected`, cast to float16."""
    assert stored.dtype == np.float16
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(stored, expected, rtol=1.1 * NARROW, atol=2e-5)


def test_nothing_is_printed(case: Case) -> None:
    assert case.said == ""


def test_the_cache_is_sealed_and_its_model_known(case: Case) -> None:
    model = case.cache.plan.model
    assert (case.cache.sealed, case.cache.plan.rows) == (True, 256)
    assert (model.n_layers, model.n_heads, model.d_model, model.d_vocab) == (2, 4, 32, 4096)
    assert model.d_head == case.projected[0][0].shape[1] // 4


@pytest.mark.parametrize("layer", [0, 1])
def test_z_is_the_input_of_the_output_projection(case: Case, layer: int) -> None:
    z_NHE = case.cache.z(layer, slice(None))
    assert z_NHE.shape == (256, 4, case.cache.plan.model.d_head)
    assert_stored(z_NHE.reshape(256, -1), case.projected[layer][0])


@pytest.mark.parametrize("layer", [0, 1])
def test_head_outputs_and_the_bias_add_up_to_what_attention_adds(case: Case, layer: int) -> None:
    summed_ND = case.cache.head_outputs(slice(None), layers=[layer])[:, 0].sum(1) + case.biases[layer]
    expected_ND = case.added[layer]
    assert np.linalg.norm(summed_ND - expected_ND) < NARROW * np.linalg.norm(expected_ND)


@pytest.mark.parametrize("layer", [0, 1])
def test_further_sites_are_the_residual_and_the_mlp(case: Case, layer: int) -> None:
    assert_stored(case.cache.site("resid_post", layer, slice(None)), case.residuals[layer])
    assert_stored(case.cache.site("mlp_out", layer, slice(None)), case.mlps[layer])


def test_the_top_tokens_are_the_models(case: Case) -> None:
    targets = case.cache.targets(slice(None))
    top_NK = np.sort(case.log_probs_NV, axis=1)[:, ::-1][:, :8]
    np.testing.assert_allclose(targets.log_probs_NK, top_NK, rtol=1.1 * NARROW, atol=1e-4)
    own_NK = np.take_along_axis(case.log_probs_NV, targets.ids_NK.astype(np.int64), axis=1)
    np.testing.assert_allclose(own_NK, top_NK, atol=1e-4)
    entropy_N = -(np.exp(case.log_probs_NV) * case.log_probs_NV).sum(1)
    np.testing.assert_allclose(targets.entropy_N, entropy_N, rtol=1e-3, atol=1e-3)
    assert np.ptp(top_NK[:, 0]) > 0.1  # the rows' distributions differ


def test_the_exact_teacher_gives_the_whole_distribution(case: Case) -> None:
    final_ND = case.cache.read("targets/final", slice(None)).astype(np.float32)
    logits_NV = torch.from_numpy(final_ND @ case.cache.weights("W_U") + case.cache.weights("b_U"))
    if case.family.cap is not None:
        logits_NV = case.family.cap * torch.tanh(logits_NV / case.family.cap)
    found_NV = logits_NV.log_softmax(-1).numpy()
    probs_NV = np.exp(case.log_probs_NV)
    assert (probs_NV * (case.log_probs_NV - found_NV)).sum(1).max() < 1e-4  # KL, nats
    np.testing.assert_allclose(found_NV, case.log_probs_NV, atol=0.02)
    np.testing.assert_array_equal(
        case.cache.weights("W_U"), case.unembedding_DV * np.float32(case.family.scale)
    )
    assert case.cache.plan.model.logit_cap == case.family.cap


def test_the_last_norm_is_the_models(case: Case) -> None:
    norm = FinalNorm.of_cache(case.cache)
    assert norm is not None and case.cache.plan.model.final_norm == norm.record
    stream_ND, expected_ND = map(torch.from_numpy, case.norm)
    torch.testing.assert_close(norm(stream_ND), expected_ND, rtol=1e-4, atol=1e-4)
    scale_N = torch.from_numpy(case.cache.read("targets/final_scale", slice(None)))
    torch.testing.assert_close(scale_N, norm.scale(stream_ND), rtol=1e-5, atol=1e-6)
    # Parts of the stream, normed by the scale of the whole, add up to the normed whole.
    parts = [stream_ND * share for share in (0.75, 0.25)]
    summed_ND = sum(norm.part(part_ND, scale_N) - norm.offset_D for part_ND in parts) + norm.offset_D
    torch.testing.assert_close(summed_ND, expected_ND, rtol=1e-3, atol=1e-3)
    if case.family.config != "NanoChatConfig":  # its norms have no gain
        assert float((norm.gain_D - 1).abs().max()) > 0.1  # norms start with a gain of 1


def test_lenses_are_fitted_to_grouped_heads(
    models: dict[str, Path], write: Callable[[Path], Cache], tmp_path: Path
) -> None:
    cache = write(models["qwen3"])
    settings = FitSettings(layers=(1,), steps=3, batch_rows=64, eval_rows=60)
    with mock.patch.dict(os.environ):
        request = FitRequest(store=cache.root, lenses=tmp_path / "lenses", settings=settings, device="cpu")
        record = fit_lenses(request).record
    assert len(record.held_out["1"]) == 4
    assert all(0 < head["kl"] < 10 for head in record.held_out["1"])
