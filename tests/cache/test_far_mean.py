"""A head whose mean is far above its spread: what it adds to its values' bias is taken back behind W_O, so that the
model is the same function, and so are its lenses."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import CacheRequest, FitRequest, fit_lenses, open_cache, write_cache
from alens.fit.settings import FitSettings
from alens.rows import moments
from alens.rows.moments import warn_of_unsound
from alens.store.cache_reader import Cache

LAYER, HEAD = 3, 4

Change = Callable[[dict[str, torch.Tensor]], None]


def shifted(by: float) -> Change:
    def change(weights: dict[str, torch.Tensor]) -> None:
        name = f"transformer.h.{LAYER}.attn"
        weights[f"{name}.c_attn.bias"][384:].view(6, 32)[HEAD] += by
        output_ED = weights[f"{name}.c_proj.weight"].view(6, 32, 192)[HEAD]
        weights[f"{name}.c_proj.bias"] -= by * output_ED.sum(0)

    return change


@pytest.fixture(scope="module", params=[200.0, 300.0])
def far_cache(
    request: pytest.FixtureRequest,
    demo_cache: Path,
    change_demo: Callable[[Path, Change], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Cache:
    """The rows of `demo_cache`, one layer, of the demo with one head shifted."""
    folder = tmp_path_factory.mktemp("far")
    model = str(change_demo(folder / "model", shifted(request.param)))
    settings = dataclasses.replace(open_cache(demo_cache).plan.settings, layers=(LAYER,))
    write_cache(
        CacheRequest(model=model, corpus="demo", store=folder / "cache", settings=settings, device="cpu")
    )
    return open_cache(folder / "cache")


def test_its_covariance_is_that_of_its_rows(far_cache: Cache) -> None:
    found_EE = moments.of_cache(far_cache, [LAYER], far_cache.shards).covariance_LHEE[0, HEAD]
    z_NE = far_cache.z(LAYER, slice(None))[:, HEAD].astype(np.float64)
    counted_NE = z_NE[far_cache.read("rows/position", slice(None)) > 0]
    variance_E = np.linalg.eigvalsh(found_EE)
    assert variance_E[0] > -1e-9 * variance_E[-1]
    np.testing.assert_allclose(found_EE, np.cov(counted_NE.T, bias=True), rtol=0, atol=1e-6 * variance_E[-1])


@pytest.mark.parametrize(("start", "off"), [("mean-output", 0.01), ("closed-form", 0.02)])
def test_its_lens_reads_as_well_as_without_the_shift(
    far_cache: Cache, demo_cache: Path, tmp_path: Path, start: str, off: float
) -> None:
    """Within a percent or two: float16 values are 0.125 and 0.25 apart at 200 and 300."""
    settings = FitSettings(layers=(LAYER,), heads=(HEAD,), batch_rows=512, eval_rows=1024, start=start)
    kl = [
        fit_lenses(
            FitRequest(store=store, lenses=tmp_path / name, settings=settings, device="cpu")
        ).record.held_out[str(LAYER)][0]["kl"]
        for name, store in (("plain", demo_cache), ("far", far_cache.root))
    ]
    assert kl[1] == pytest.approx(kl[0], rel=off)


def test_a_covariance_summed_in_float32_is_named(
    far_cache: Cache, demo_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Caches from before NUMERICS 3 hold such sums; no head of a sound cache is named."""
    z_HNE = far_cache.z(LAYER, slice(None)).astype(np.float32).swapaxes(0, 1)
    mean_HE = z_HNE.mean(1, dtype=np.float64)
    outer_HEE = (z_HNE.mT @ z_HNE / z_HNE.shape[1]).astype(np.float64)
    covariance_HEE = outer_HEE - mean_HE[:, :, None] * mean_HE[:, None, :]
    warn_of_unsound(far_cache.root, [LAYER], mean_HE[None], covariance_HEE[None])
    (line,) = caplog.messages
    assert f"wrong for {LAYER}.{HEAD} (" in line
    moments.of_cache(far_cache, [LAYER], far_cache.shards)
    demo = open_cache(demo_cache)
    moments.of_cache(demo, demo.plan.layers, demo.shards)
    assert caplog.messages == [line]
