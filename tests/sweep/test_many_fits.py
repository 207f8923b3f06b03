import contextlib
import dataclasses
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens import FitRequest, fit_lenses
from alens.errors import RequestError, StoppedError
from alens.fit import trainer
from alens.fit.engine import Engine
from alens.job.worker import Worker
from alens.rows.columns import RowReader
from alens.store import one_writer
from alens.store.claim import Claim
from alens.sweep import result as results
from alens.sweep.many_fits import run_sweep, write_sweep_table
from alens.sweep.request import SweepRequest

from ..stops import Stop

LENSES = ("layer-03.safetensors", "lens.json", "output.safetensors")
CHANGES: list[dict[str, Any]] = [
    {"name": "plain"},
    {"name": "fast", "lr": 0.1},
    {"name": "heads", "heads": [4, 0]},
    {"name": "low-rank", "lens": "low-rank", "lens_options": {"rank": 4}},
    {"name": "narrow", "top_k": 4, "tail_samples": 4},
    {"name": "exact", "teacher": "exact", "steps": 3},
]


def lenses(out: Path) -> dict[str, bytes]:
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in out.glob("*/*")
        if path.name in LENSES
    }


def figures(out: Path) -> dict[str, Any]:
    """What the table says, less the time it took."""
    body = json.loads((out / "table.json").read_text())
    for row in body["rows"]:
        del row["seconds"]
    return body


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[int]]:
    """How often each shard is read to train on: held-out rows ask for the next tokens too."""
    reads: Counter[int] = Counter()
    plain = RowReader.shard

    def shard(self: RowReader, number: int, *more: str, **stretch: Any) -> Any:
        if not more:
            reads[number] += 1
        return plain(self, number, *more, **stretch)

    with monkeypatch.context() as patch:
        patch.setattr(RowReader, "shard", shard)
        yield reads


def test_variants_share_one_read_and_their_lenses_are_those_of_fits_alone(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = sweep(
        {"steps": 39},
        variant=[dict(change, steps=3) if change["name"] == "exact" else change for change in CHANGES],
    )
    with counted(monkeypatch) as reads:
        run_sweep(request)
    assert reads == dict.fromkeys(range(5), 1)  # 39 steps of 128 rows: one pass over 5 shards of 1,008
    for variant in request.grid.variants:
        alone = tmp_path / "alone" / variant.name
        fit_lenses(FitRequest(store=request.store, lenses=alone, settings=variant.settings, device="cpu"))
    assert lenses(request.out) == lenses(tmp_path / "alone")


def test_one_at_once_gives_the_same_and_reads_once_a_variant(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = sweep(lr=[0.01, 0.03, 0.1])
    run_sweep(request)
    alone = dataclasses.replace(request, out=tmp_path / "one", at_once=1)
    with counted(monkeypatch) as reads:
        run_sweep(alone)
    assert set(reads.values()) == {3}
    assert lenses(alone.out) == lenses(request.out)


def test_a_finished_variant_is_left_alone_and_a_lost_one_is_made_again(sweep: Any) -> None:
    request = sweep(lr=[0.01, 0.03])
    run_sweep(request)
    before = {path: path.stat().st_mtime_ns for path in request.out.rglob("*")}
    run_sweep(request)
    assert {path: path.stat().st_mtime_ns for path in request.out.rglob("*")} == before
    first, second = (results.read_result(request.out / name) for name in ("lr=0.01", "lr=0.03"))
    (request.out / "lr=0.03" / "result.json").unlink()  # killed between lenses and result: judged only
    run_sweep(request)
    again = results.read_result(request.out / "lr=0.03")
    assert second is not None and again is not None and first is not None
    assert np.array_equal(again.kl_GH, second.kl_GH) and again.seconds == second.seconds > 0
    assert not np.array_equal(again.kl_GH, first.kl_GH)


def test_a_variant_that_another_works_on_is_refused_and_dead_ones_are_waited_for_together(
    sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = sweep(lr=[0.01, 0.03, 0.1])
    with pytest.raises(StoppedError):
        run_sweep(request, should_stop=lambda: True)
    with (
        one_writer.claimed(request.out / "lr=0.03"),
        pytest.raises(RequestError, match=r"out/lr=0.03 is in use by process \d+ on "),
    ):
        run_sweep(request)
    assert not any(request.out.glob("*/fit.json")) and not any(request.out.rglob(one_writer.CLAIM))
    monkeypatch.setattr(one_writer, "WAIT_S", 2.0)
    for variant in request.grid.variants:
        (request.out / variant.name).mkdir(exist_ok=True)
        claim = {"host": "elsewhere", "pid": 7, "token": variant.name}
        (request.out / variant.name / one_writer.CLAIM).write_text(json.dumps(claim))
    waiting, most = [0], [0]
    claimed = one_writer.claimed

    @contextlib.contextmanager
    def counted(*given: Any) -> Iterator[Claim]:
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        with claimed(*given) as claim:
            waiting[0] -= 1
            yield claim

    monkeypatch.setattr(one_writer, "claimed", counted)
    run_sweep(request)
    assert most == [3] and len(list(request.out.glob("*/lens.json"))) == 3


def test_a_sweep_that_is_stopped_again_and_again_ends_with_the_same_lenses(
    sweep: Any, tmp_path: Path
) -> None:
    request = sweep(variant=CHANGES[2:])
    run_sweep(request)
    write_sweep_table(request)
    stopped = dataclasses.replace(request, out=tmp_path / "stopped", at_once=2, checkpoint_every=2)
    draw, stops = random.Random(0), 0
    while True:
        try:
            stop = Stop(draw.randint(1, 2), pieces=draw.randint(0, 9))
            run_sweep(stopped, report=stop.report, should_stop=stop)
            break
        except StoppedError as error:
            stops += 1
            assert "variants finished (the others are saved in" in str(error)
    write_sweep_table(stopped)
    assert stops >= 4
    assert lenses(stopped.out) == lenses(request.out)
    assert figures(stopped.out) == figures(request.out)


def test_one_that_lags_behind_catches_up_and_then_they_go_on_together(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between two checkpoints, with one variant that had none at all."""
    request = sweep(lr=[0.01, 0.03, 0.1])
    run_sweep(request)
    lagging = dataclasses.replace(request, out=tmp_path / "lagging")
    stop = Stop(4)
    with pytest.raises(StoppedError):
        run_sweep(lagging, report=stop.report, should_stop=stop)
    for file in sorted((lagging.out / "lr=0.03").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    taken: list[tuple[float, int]] = []
    plain = trainer.Trainer.step

    def step(self: trainer.Trainer, batch: Any) -> Any:
        taken.append((self.settings.lr, self.step_number))
        return plain(self, batch)

    monkeypatch.setattr(trainer.Trainer, "step", step)
    run_sweep(lagging)
    assert taken[:4] == [(0.03, 0), (0.03, 1), (0.03, 2), (0.03, 3)]
    assert taken[4:] == [(lr, number) for number in (4, 5) for lr in (0.01, 0.03, 0.1)]
    assert lenses(lagging.out) == lenses(request.out)


def test_those_that_are_finished_drop_out_and_give_their_memory_back(
    sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: weakref.WeakSet[Engine] = weakref.WeakSet()
    alive: list[int] = []
    plain = Engine.step

    def step(self: Engine, *arguments: Any, **more: Any) -> Any:
        made.add(self)
        alive.append(len(made))
        return plain(self, *arguments, **more)

    monkeypatch.setattr(Engine, "step", step)
    gc.disable()  # or else it may happen to come by
    try:
        run_sweep(sweep(variant=[{"steps": 2}, {"steps": 3}, {"steps": 4}]))
    finally:
        gc.enable()
    assert alive == [1, 2, 3, *[3, 3, 3], *[3, 2, 2], *[2, 1], 1]


def test_a_loss_that_explodes_ends_one_variant_and_not_the_sweep(
    sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = sweep(lr=[0.03, 3e37])
    run_sweep(request)
    table = write_sweep_table(request)
    assert [row.failed is None for row in table.rows] == [True, False]
    assert "has diverged (it is not finite" in str(table.rows[1].failed)
    with counted(monkeypatch) as reads:
        run_sweep(request)
    assert not reads


def test_workers_together_give_the_table_of_one(sweep: Any, tmp_path: Path) -> None:
    request = sweep(variant=CHANGES)
    run_sweep(request)
    write_sweep_table(request)
    for index in range(3):
        part = dataclasses.replace(request, out=tmp_path / "parts", worker=Worker(index=index, count=3))
        run_sweep(part)
        table = write_sweep_table(part)
        assert (len(table.rows), len(table.missing)) == (2 * (index + 1), 4 - 2 * index)
    assert figures(tmp_path / "parts") == figures(request.out)
    assert lenses(tmp_path / "parts") == lenses(request.out)


def test_all_are_judged_on_the_same_rows_whatever_they_were_fitted_on(sweep: Any) -> None:
    request = sweep(variant=[{}, {"min_position": 9}, {"objective": "last-position", "batch_rows": 16}])
    run_sweep(request)
    rows = [results.read_result(request.out / variant.name).rows_G for variant in request.grid.variants]
    assert all(np.array_equal(one, rows[0]) for one in rows) and rows[0].sum() == 256


def test_several_processes_of_one_sweep_are_refused(sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RequestError, match="spread its variants over jobs with --worker"):
        run_sweep(sweep())


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_lenses(
    sweep: Any, demo_cache: Path, tmp_path: Path
) -> None:
    """SIGKILL, with a checkpoint every other step."""
    steps = 12
    request: SweepRequest = sweep({"steps": steps}, lr=[0.01, 0.03], lens=["linear", "low-rank"])
    run_sweep(request)
    write_sweep_table(request)
    config, out = tmp_path / "c.toml", tmp_path / "killed"
    config.write_text(
        f"layers = [3]\nheads = [1]\nbatch_rows = 128\neval_rows = 256\nsteps = {steps}\ntolerance = 0.0\n"
        '[grid]\nlr = [0.01, 0.03]\nlens = ["linear", "low-rank"]\n'
    )
    command = [sys.executable, "-m", "alens", "sweep", config, demo_cache, out, "--device", "cpu", "--checkpoint-every", "2"]  # fmt: skip
    draw, kills = random.Random(1), 0
    while kills < 3:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
        )
        seen = len(list(out.glob("*/checkpoints/step-*")))
        while process.poll() is None and len(list(out.glob("*/checkpoints/step-*"))) <= seen:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if (out / "table.json").exists():
            break
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert lenses(out) == lenses(request.out)
    assert figures(out) == figures(request.out)
