"""Heads behind a norm or a factor: what they write, by every part that says it, against the parameters in plain transformers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from alens import CacheRequest, EvaluateSettings, FitRequest, evaluate, fit_lenses, load_lenses, write_cache
from alens.cache.recompute import recompute
from alens.cache.request import RecomputeRequest
from alens.errors import RequestError
from alens.exchange import export
from alens.fit.settings import FitSettings
from alens.heads import Heads
from alens.model.attention_sources import attention_sources
from alens.model.edits import Edit, run_edited
from alens.reading.head_reader import HeadReader
from alens.rows.final_norm import FinalNorm
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings
from alens.studies.injection.typical import typical

from ..model.families import FACTORS, Family, save

SETTINGS = CacheSettings(
    seq_len=16, rows_per_shard=64, max_rows=256, batch_size=2, top_k=8, tail_samples=4, exact_teacher=True
)
LAYER, HEADS, WIDTH = 1, 4, 8
PROMPT = "She looked at the sea and"


class Case:
    """A family: its cache, lenses, reader, and plain transformers with what its hooks kept."""

    def __init__(self, name: str, root: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.family: Family = FACTORS[name]
        folder = save(root / "model", self.family.config, self.family.options)
        request = CacheRequest(
            model=str(folder), corpus="demo", store=root / "cache", settings=SETTINGS, device="cpu"
        )
        self.cache: Cache = write_cache(request).cache
        settings = FitSettings(layers=(LAYER,), steps=2, batch_rows=64, eval_rows=60)
        with mock.patch.dict(os.environ):
            fit_lenses(
                FitRequest(store=root / "cache", lenses=root / "lenses", settings=settings, device="cpu")
            )
        self.reader = HeadReader(load_lenses(root / "lenses"), device="cpu")
        self.ids = self.reader.tokens(PROMPT)
        self.plain = (
            AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
            .eval()
            .requires_grad_(False)
        )
        self.block = self.plain.get_submodule(self.family.layers)[LAYER]
        self.kept: dict[str, torch.Tensor] = {}
        self.block.self_attn.o_proj.register_forward_hook(self._keep("z", "output"))
        self.plain.get_submodule(self.family.norm).register_forward_hook(self._keep("stream", "final"))
        with torch.inference_mode():
            self.logits_TV = self.plain(torch.tensor([self.ids])).logits[0]

    def _keep(self, given: str, made: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
            self.kept[given], self.kept[made] = inputs[0][0], output[0]

        return hook

    def gain(self, name: str, module: Any) -> torch.Tensor:
        weight_D: torch.Tensor = module.get_submodule(name).weight
        return 1 + weight_D if self.family.config.startswith("Gemma") else weight_D

    @property
    def write_THD(self) -> torch.Tensor:
        """(T, H, D) what each head of the layer adds to the stream, from the parameters."""
        W_HED = self.block.self_attn.o_proj.weight.T.reshape(HEADS, WIDTH, -1)
        write_THD = torch.einsum("the,hed->thd", self.kept["z"].reshape(-1, HEADS, WIDTH), W_HED)
        if self.family.behind is not None:
            rms_T = (self.kept["output"].square().mean(-1) + self.plain.config.rms_norm_eps).sqrt()
            write_THD = write_THD / rms_T[:, None, None] * self.gain(self.family.behind, self.block)
        return write_THD.detach() * self.family.factor


@pytest.fixture(
    scope="module",
    params=["gemma2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("granite", "olmo2"))],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


def test_the_direct_write_is_that_of_the_parameters(case: Case) -> None:
    reader, ids = case.reader, case.ids
    mean_HE = reader.lenses.mean_z(LAYER)
    assert mean_HE is not None
    case.kept["z"] = case.kept["z"] - mean_HE.flatten()
    rms_T = (case.kept["stream"].square().mean(-1) + case.plain.config.rms_norm_eps).sqrt()
    gain_D = case.gain(case.family.norm, case.plain)
    expected_HTD = (case.write_THD / rms_T[:, None, None] * gain_D).transpose(0, 1).detach()
    case.kept["z"] = case.kept["z"] + mean_HE.flatten()
    ran = reader.run(ids, [LAYER])
    values_HTE = reader.values(ran, LAYER, range(HEADS))
    final_HTD = reader.writes.final(LAYER, range(HEADS), values_HTE, reader.scale(ran))
    torch.testing.assert_close(final_HTD, expected_HTD, rtol=1e-3, atol=1e-5)
    W_U_DV = case.plain.get_output_embeddings().weight.T.detach() * case.family.scale
    logits_HTV = expected_HTD @ W_U_DV
    written_HTV = reader.writes.logits(LAYER, range(HEADS), values_HTE, reader.scale(ran))
    centred_HTV = logits_HTV - logits_HTV.mean(-1, keepdim=True)
    torch.testing.assert_close(written_HTV, centred_HTV, rtol=1e-3, atol=1e-4)
    whole_HTV = reader.unembedding_logits(LAYER, range(HEADS), values_HTE, reader.scale(ran))
    own_HTD = (case.write_THD / rms_T[:, None, None] * gain_D).transpose(0, 1).detach()
    torch.testing.assert_close(whole_HTV, own_HTD @ W_U_DV, rtol=1e-3, atol=1e-4)


def test_the_cache_agrees_with_the_model(case: Case) -> None:
    recomputed = recompute(case.cache, RecomputeRequest(rows=64, device="cpu"))
    assert recomputed.agrees
    names = {one.array for one in recomputed.comparisons}
    assert ("targets/write_scale" in names) == (case.family.behind is not None)


def test_the_panel_reads_what_heads_write(case: Case) -> None:
    evaluation = evaluate(
        case.reader.lenses,
        case.cache,
        settings=EvaluateSettings(resamples=2, baselines=("unembedding", "written", "scaled-write")),
    )
    rows = np.flatnonzero(case.cache.read("rows/position", slice(None)) >= 1)
    rows = rows[rows >= case.cache.plan.rows - evaluation.rows * 16 // 15]
    assert len(rows) == evaluation.rows
    norm = FinalNorm.of_cache(case.cache)
    assert norm is not None
    scale_N1 = torch.from_numpy(case.cache.read("targets/final_scale", rows))[:, None]
    final_NV = torch.from_numpy(case.cache.read("targets/final", rows).astype(np.float32))
    W_U_DV = torch.from_numpy(case.cache.weights("W_U"))
    model_NV = final_NV @ W_U_DV
    cap = case.family.cap
    model_NV = (model_NV if cap is None else cap * torch.tanh(model_NV / cap)).log_softmax(-1)
    outputs_NHD = torch.from_numpy(case.cache.head_outputs(rows, layers=[LAYER])[:, 0])
    mean_HE = case.reader.lenses.mean_z(LAYER)
    assert mean_HE is not None
    means_NHD = outputs_NHD - _around(case.cache, rows, mean_HE)
    mean_V = case.reader.lenses.log_mean_output()
    for head in range(HEADS):
        own_NV = (norm.linear(outputs_NHD[:, head]) / scale_N1 @ W_U_DV).log_softmax(-1)
        assert evaluation.unembedding[LAYER][head].kl == pytest.approx(_kl(model_NV, own_NV), rel=1e-3)
        added_NV = norm.linear(outputs_NHD[:, head] - means_NHD[:, head]) / scale_N1 @ W_U_DV
        written_NV = (added_NV + mean_V).log_softmax(-1)
        assert evaluation.of_heads["written"][LAYER][head].kl == pytest.approx(
            _kl(model_NV, written_NV), rel=1e-3
        )


def _around(cache: Cache, rows: np.ndarray[Any, Any], mean_HE: torch.Tensor) -> torch.Tensor:
    """(N, H, D) what heads write of z around its mean."""
    z_NHE = torch.from_numpy(cache.z(LAYER, rows).astype(np.float32)) - mean_HE
    if cache.plan.model.keeps_write_scale:
        z_NHE = z_NHE / torch.from_numpy(cache.read("targets/write_scale", rows))[:, LAYER, None, None]
    return torch.einsum("nhe,hed->nhd", z_NHE, torch.from_numpy(cache.weights("W_O")[LAYER]))


def _kl(p_NV: torch.Tensor, q_NV: torch.Tensor) -> float:
    return float((p_NV.exp() * (p_NV - q_NV)).sum(-1).mean())


def test_what_is_added_to_the_output_reaches_the_stream_as_it_is(case: Case) -> None:
    added_D = torch.linspace(-1, 1, 32)
    edit = Edit(layer=LAYER, output=lambda value_BTD: value_BTD + added_D)
    final_BTD = run_edited(case.reader.model, torch.tensor([case.ids]), [edit])
    module = case.block.get_submodule(case.family.behind or "self_attn.o_proj")
    handle = module.register_forward_hook(lambda *seen: seen[-1] + added_D / case.family.factor)
    try:
        with torch.inference_mode():
            case.plain(torch.tensor([case.ids]))
    finally:
        handle.remove()
    edited_TD = case.kept["final"]
    with torch.inference_mode():
        case.plain(torch.tensor([case.ids]))  # what was kept is that of the model as it is again
    torch.testing.assert_close(final_BTD[0], edited_TD, rtol=1e-4, atol=1e-5)


def test_the_size_of_what_moves_and_of_what_is_typical(case: Case) -> None:
    model, tokens = case.reader.model, torch.tensor([case.ids])
    sources = attention_sources(model, case.ids, Heads.grid((LAYER,), range(HEADS)), [0])[LAYER]
    size_H = case.write_THD[0].norm(dim=-1)  # position 0 sees itself alone
    torch.testing.assert_close(sources.moved_HQT[:, 0, 0], size_H, rtol=1e-4, atol=1e-5)
    here = typical(model, [tokens], [LAYER], site="attn.z")
    for head in range(HEADS):
        expected = case.write_THD[1:, head].square().sum(-1).mean().sqrt()
        assert here[LAYER, head].output_norm == pytest.approx(float(expected), rel=1e-4)


def test_what_needs_one_map_for_all_rows_is_refused_in_a_line(case: Case) -> None:
    if case.family.behind is None:
        assert export.plan(case.reader.lenses).width == 32
        return
    with pytest.raises(
        RequestError, match=r"has a norm behind its attention, so .* take --form z$"
    ) as caught:
        export.plan(case.reader.lenses)
    assert len(str(caught.value).splitlines()) == 1
