"""A design that is whole at its start: its lenses are those of the closed form, and nothing that trains is started."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from alens import FitRequest, FitSettings, fit_lenses, load_lenses, open_cache
from alens.errors import RequestError, StoppedError
from alens.fit.recipe import QUICK_LOGITS, Recipe, quick_rows
from alens.heads import Heads
from alens.lens.closed_form import closed_form
from alens.lens.lenses import Lenses
from alens.lens.record import LensRecord
from alens.lens.whitening import Whitening
from alens.rows import moments
from alens.rows.columns import RowReader
from alens.statistics.divergences import kl_between_log_probs

Run = Callable[..., LensRecord]


@pytest.fixture
def regressed(planted_store: Path, tmp_path: Path) -> Run:
    """`regressed(name, **settings)` fits the planted store by `regression`."""

    def run(name: str = "lenses", **given: Any) -> LensRecord:
        settings = FitSettings(**{"lens": "regression", "eval_rows": 1024, **given})
        request = FitRequest(store=planted_store, lenses=tmp_path / name, settings=settings, device="cpu")
        return fit_lenses(request).record

    return run


@pytest.fixture(scope="module")
def of_demo(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Lenses:
    """Heads 1 and 4 of layer 3 of the demo."""
    settings = FitSettings(lens="regression", layers=(3,), heads=(1, 4), eval_rows=1024)
    lenses = tmp_path_factory.mktemp("untrained") / "lenses"
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=demo_cache, lenses=lenses, settings=settings, device="cpu"))
    return load_lenses(lenses)


def test_the_mean_of_z_is_that_of_all_shards_of_the_fit(of_demo: Lenses, demo_cache: Path) -> None:
    (mean_HE,) = moments.mean_z(open_cache(demo_cache), Heads.grid((3,), (1, 4))).values()
    kept_HE = of_demo.mean_z(3)
    assert kept_HE is not None and torch.equal(kept_HE, mean_HE)


def test_lenses_are_the_closed_form_of_the_shards_that_are_not_held_out(
    of_demo: Lenses, demo_cache: Path
) -> None:
    record, cache = of_demo.record, open_cache(demo_cache)
    train, held_out = (record.cache[f"{part}_shards"] for part in ("train", "held_out"))
    assert sorted([*train, *held_out]) == list(cache.shards) and not set(train) & set(held_out)
    closed, log_mean_V = closed_form(cache, Heads.grid((3,), (1, 4)), train)[3], of_demo.log_mean_output()
    assert log_mean_V is not None and record.fit["rows_seen"] == closed.num_rows
    whitening = Whitening.from_moments(closed.mean_HE, closed.covariance_HEE)
    W_U_DV = torch.from_numpy(cache.weights("W_U"))
    weight_HEV, matched_HV = closed.affine(W_U_DV, log_mean_V, whitening)
    spread_HV = log_mean_V - weight_HEV.square().sum(1) / 2  # what the form keeps without a shift
    reader = RowReader(cache, Heads.grid((3,), (1, 4)), "exact", 1, torch.device("cpu"))
    z_NHE = reader.z(reader.shard(0, stop=50), 3)
    for place in (0, 1):
        said_NV = of_demo.layer(3).maps.logits(place, z_NHE[:, place]).log_softmax(-1)
        moved_NV = whitening.white(z_NHE)[place] @ weight_HEV[place]
        near, far = (
            float(kl_between_log_probs((moved_NV + b_V).log_softmax(-1), said_NV).mean())
            for b_V in (matched_HV[place], spread_HV[place])
        )
        assert near < 1e-3 and near < far / 3


def test_heads_are_judged_and_noise_says_nothing(of_demo: Lenses, regressed: Run) -> None:
    strong = of_demo.record
    assert strong.mean_output_kl is not None
    assert all(head["kl"] < 0.95 * strong.mean_output_kl for head in strong.held_out["3"])
    assert strong.fit["steps"] == strong.fit["most_steps"] == 0 and not strong.fit["converged"]
    record = regressed(heads=(1,))
    assert record.says_nothing(0, 1) and record.held_out["0"][0]["kl"] == record.mean_output_kl


def test_a_second_run_has_nothing_to_do_and_other_settings_are_refused(
    regressed: Run, tmp_path: Path
) -> None:
    first = regressed()
    before = (tmp_path / "lenses" / "lens.json").stat().st_mtime_ns
    assert regressed() == first
    assert (tmp_path / "lenses" / "lens.json").stat().st_mtime_ns == before
    with pytest.raises(RequestError, match="holds another fit: heads is"):
        regressed(heads=(0,))


def test_nothing_that_trains_is_started(run_alens_process: Any, planted_store: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from alens.cli import run; "
        f"code = run(['fit', {str(planted_store)!r}, {str(tmp_path / 'lenses')!r}, '--lens', 'regression', '--eval-rows', '512', '--device', 'cpu']); "
        "print(sorted(name for name in sys.modules if name in ('deepspeed', 'transformers'))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 3, "lr": 0.1}, "regression takes no steps: leave steps, lr out"),
        ({"objective": "reverse-kl"}, "regression takes no steps, so it has no loss: leave --objective out"),
    ],
)
def test_what_it_would_ignore_is_refused(
    regressed: Run, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        regressed(**given)
    assert not (tmp_path / "lenses").exists()


def test_several_processes_are_refused(
    regressed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_PORT": 29500}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(RequestError, match="takes no steps, which processes could share: run it as one"):
        regressed()
    assert not (tmp_path / "lenses").exists()


def test_a_stop_leaves_no_lenses_and_the_next_run_makes_them(planted_store: Path, tmp_path: Path) -> None:
    settings = FitSettings(lens="regression", eval_rows=1024)
    request = FitRequest(store=planted_store, lenses=tmp_path / "lenses", settings=settings, device="cpu")
    with pytest.raises(StoppedError, match="nothing was written: run the same command again"):
        fit_lenses(request, should_stop=lambda: True)
    assert json.loads((tmp_path / "lenses" / "stopped.json").read_text()) == {"step": 0, "steps": 0}
    assert fit_lenses(request).record.held_out
    assert not (tmp_path / "lenses" / "stopped.json").exists()


def test_figures_take_seconds_and_at_most_a_tenth_of_the_rows(planted_store: Path) -> None:
    cache = open_cache(planted_store)
    small = Recipe(FitSettings(lens="regression"), cache, torch.device("cpu"))
    shards, rows = cache.plan.num_shards, cache.plan.settings.rows_per_shard
    assert small.eval_rows == max(1, shards // 10) * rows < 16_384
    assert quick_rows(1) == 16_384
    assert quick_rows(270 * 49_152) == QUICK_LOGITS // (270 * 49_152) == 1_294
    assert quick_rows(10**9) == 256
    assert Recipe(FitSettings(lens="regression", eval_rows=7), cache, torch.device("cpu")).eval_rows == 7
