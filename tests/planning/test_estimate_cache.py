"""An estimate as a whole: what it refuses, what it leaves alone, what is left of a cache that was begun."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import CacheRequest, FitRequest, fit_lenses
from alens.errors import RequestError, StoppedError
from alens.fit.convergence import FIRST_EVALUATION
from alens.fit.settings import FitSettings
from alens.heads import Heads
from alens.planning.result import Estimate

from ..stops import Stop

MakeRequest = Callable[..., CacheRequest]
MakeEstimate = Callable[..., Estimate]


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything there is, and when it was changed, the folder itself too."""
    paths = [folder, *folder.rglob("*")]
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns, p.stat().st_size) for p in paths}


def numbers(body: Any, path: str = "") -> dict[str, float]:
    if isinstance(body, dict):
        parts = [numbers(value, f"{path}/{key}") for key, value in body.items()]
    elif isinstance(body, list):
        parts = [numbers(value, f"{path}/{index}") for index, value in enumerate(body)]
    else:
        return {path: body} if isinstance(body, (int, float)) and not isinstance(body, bool) else {}
    return {key: value for part in parts for key, value in part.items()}


def test_nothing_is_written(tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = state(tmp_path)
    estimated(request_for(tmp_path / "deep/store"))
    assert state(tmp_path) == before


def test_nothing_is_written_where_a_cache_is(
    half_written: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    before = state(half_written)
    estimate = estimated(request_for(half_written))
    assert state(half_written) == before
    assert (estimate.text, estimate.shards_done, estimate.shards_left, estimate.rows_left) == (
        None,
        2,
        2,
        1024,
    )
    assert estimate.space.needed_inodes == 2 * estimate.sizes.files_a_shard
    assert estimate.space.needed_bytes == estimate.sizes.bytes_to_write(2, 4096, False) + 16 * 2**20
    assert estimate.tokenise_hours == 0
    assert estimate.cache_hours(1) == estimate.costs.cache_hours(1024)
    assert estimate.cache_hours(2) == pytest.approx(estimate.cache_hours(1) / 2)


def test_times_are_positive_and_agree(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    estimate = estimated(request_for(tmp_path / "store"), workers=3, max_minutes=0.001)
    body = estimate.to_json()
    for name, value in numbers({part: body[part] for part in ("rates", "time", "passes")}).items():
        assert value > 0, name
        assert np.isfinite(value), name
    time = body["time"]
    assert time["cache_hours"] == pytest.approx(
        time["tokenise_hours"] + time["compute_hours"] + time["write_hours"]
    )
    assert time["tokenise_hours"] < time["cache_hours_with_workers"] < time["cache_hours"]
    assert time["runs_per_worker"] == np.ceil(time["cache_hours_with_workers"] * 60 / 0.001)
    one, both = body["passes"]["cases"]
    assert (one["name"], one["heads"], both["name"], both["heads"]) == ("layer 0", 6, "2 layers", 12)
    assert both["fit_s_per_row"] == pytest.approx(2 * one["fit_s_per_row"])
    assert both["read_s_per_row"] > one["read_s_per_row"]
    for case in (one, both):
        saved = (
            body["passes"]["forward_s_per_row"]
            + case["fit_s_per_row"]
            - max(case["read_s_per_row"], case["fit_s_per_row"])
        )
        spent = body["passes"]["compute_s_per_row"] + body["passes"]["write_s_per_row"]
        assert case["break_even_passes"] == pytest.approx(spent / saved)
        cached = [entry["cached_hours"] for entry in case["passes"]]
        assert cached == sorted(cached)
    assert estimate.memory_bytes > 2 * estimate.sizes.shard_memory_bytes


def test_a_row_is_written_as_a_shard_is(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    estimate = estimated(request_for(tmp_path / "store"))
    rates, rows = estimate.disk, estimate.plan.settings.rows_per_shard
    a_byte = rates.write_s_a_byte + rates.read_s_a_byte + rates.hash_s_a_byte
    expected = estimate.sizes.shard_bytes * a_byte + estimate.sizes.files_a_shard * rates.sync_s
    assert estimate.costs.write_s == pytest.approx(estimate.codecs.encode_s + expected / rows)


@pytest.mark.parametrize("settings", [{"z_dtype": "int8"}, {"sites": ("mlp_out",)}], ids=str)
def test_what_a_fit_reads(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate, settings: dict[str, Any]
) -> None:
    """z of its layers, with scales, and the compressed targets; no further sites."""
    estimate = estimated(request_for(tmp_path / "store", settings))
    z = 6 * 32 + 6 * 2 if "z_dtype" in settings else 6 * 32 * 2
    targets = 8 * 2 + 8 * 2 + 4 + 4 + 8 * 2 + 2
    cost = estimate.fit_costs(Heads.grid((2,), range(6)))
    decode = cost.read_s - (z + targets) * estimate.disk.read_s_a_byte
    names = {"targets/ids", "targets/log_probs", "targets/logsumexp", "targets/entropy", "targets/tail_ids"}
    names |= {"rows/position", "sites/attn.z/02"} | ({"scales/attn.z/02"} if "z_dtype" in settings else set())
    # what is not a value are checksums: 24 bytes a file of 512 rows
    overhead = 24 / 512 * len(names) * estimate.disk.read_s_a_byte
    assert decode - overhead == pytest.approx(sum(estimate.codecs.decode_s[name] for name in names))


def test_a_larger_probe_runs_more_rows(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    request = request_for(tmp_path / "store", {"rows_per_shard": 2048})
    few, many = estimated(request, probe_s=1e-4), estimated(request, probe_s=3.0)
    assert few.model.plan.rows < many.model.plan.rows <= 2048
    assert few.sizes.bytes_of("row", "shard", "token") == many.sizes.bytes_of("row", "shard", "token")


def test_no_probe_takes_more_than_the_budget(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    """On more work than there is time for: half a second beside the smallest pieces, which are always measured."""
    request = request_for(tmp_path / "store", {"rows_per_shard": 32768, "max_rows": 65536, "batch_size": 512})

    def cpu_s(probe_s: float) -> float:
        since = time.process_time()
        estimated(request, probe_s=probe_s)
        return time.process_time() - since

    cpu_s(1e-4)  # loads what is loaded once
    least_s = cpu_s(1e-4)
    assert cpu_s(least_s + 0.5) < least_s + 0.5 + 0.5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"settings": {"layers": (4,)}}, "layer 4 does not exist: demo has layers 0 to 3"),
        ({"settings": {"seq_len": 512}}, "seq_len is 512: demo sees 256 tokens at most"),
        ({"model": "/no/such/model"}, "/no/such/model does not exist"),
        ({"corpus": "missing.txt"}, "missing.txt does not exist"),
        ({"device": "abacus"}, "device 'abacus' is unknown"),
    ],
    ids=str,
)
def test_it_refuses_what_a_cache_would(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        estimated(request_for(tmp_path / "store", **changes))
    assert not list(tmp_path.iterdir())


def test_a_text_that_fills_no_shard(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    (tmp_path / "short.txt").write_text("three short words\n")
    request = request_for(tmp_path / "store", {"max_rows": None}, corpus=str(tmp_path / "short.txt"))
    with pytest.raises(RequestError, match="0 sequences of 64: fewer than one shard of 512 rows"):
        estimated(request)


def test_a_store_of_another_plan(
    half_written: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    with pytest.raises(RequestError, match="holds another plan: seed is 1"):
        estimated(request_for(half_written, {"seed": 1}))


def test_a_store_that_holds_other_things(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="neither empty nor a cache"):
        estimated(request_for(tmp_path))
    with pytest.raises(RequestError, match=r"notes\.txt is not a directory"):
        estimated(request_for(tmp_path / "notes.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("changes", "says"), [({"workers": 0}, "workers is 0"), ({"probe_s": 0}, "probe_seconds is 0")]
)
def test_settings_of_the_estimate(
    tmp_path: Path, request_for: MakeRequest, estimated: MakeEstimate, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        estimated(request_for(tmp_path / "store"), **changes)


def test_a_save_takes_the_bytes_that_it_says(
    tmp_path: Path, demo_cache: Path, request_for: MakeRequest, estimated: MakeEstimate
) -> None:
    """A fit of two layers is stopped after an evaluation, when its checkpoint holds the best lenses too."""
    estimate = estimated(request_for(tmp_path / "store"))
    stop = Stop(FIRST_EVALUATION + 1)
    settings = FitSettings(layers=(0, 3), batch_rows=128, eval_rows=1024, tolerance=0)
    with pytest.raises(StoppedError):
        fit_lenses(
            FitRequest(store=demo_cache, lenses=tmp_path / "lenses", settings=settings, device="cpu"),
            report=stop.report,
            should_stop=stop,
        )
    (state,) = (tmp_path / "lenses/checkpoints").glob("*/state.safetensors")
    assert estimate.fit_estimate(estimate.heads).checkpoint_bytes == pytest.approx(
        state.stat().st_size, rel=0.01
    )  # of two layers, too
    case = estimate.to_json()["passes"]["cases"][0]
    assert (
        case["save_bytes"]
        == estimate.fit_estimate(Heads.grid(estimate.plan.layers[:1], range(6))).checkpoint_bytes
    )
    assert case["save_s"] == estimate.disk.save_s(case["save_bytes"]) > 0
    rates = estimate.to_json()["rates"]
    assert rates["threads"] == torch.get_num_threads() and rates["cpus"] == os.cpu_count()
