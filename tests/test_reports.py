"""What work reports to its watcher: when each stage begins, and how much is done. The watcher draws from this alone."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from alens import (
    CacheRequest,
    EvaluateSettings,
    FitRequest,
    evaluate,
    fit_lenses,
    load_lenses,
    open_cache,
    write_cache,
)
from alens.exchange import export
from alens.exchange.request import ExportRequest
from alens.fit.settings import FitSettings
from alens.job.progress import Progress
from alens.store.schema import CacheSettings
from alens.store.verify import verify_cache


class Told:
    """The reports of a piece of work."""

    def __init__(self) -> None:
        self.reports: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.reports.append(progress)

    @property
    def stages(self) -> list[str]:
        """In the order in which they first came."""
        return list(dict.fromkeys(report.stage for report in self.reports))

    def counts(self) -> Iterator[tuple[str, list[int], int]]:
        """(stage, what was done, total) of each stage that counts to an end that is known from the start."""
        for stage in self.stages:
            reports = [report for report in self.reports if report.stage == stage]
            if reports[0].total:
                yield stage, [report.done for report in reports], reports[0].total

    def check(self) -> None:
        """Stages that count begin with nothing done, never fall back within a run of them, and come to their end."""
        for stage, done, total in self.counts():
            assert (min(done), max(done)) == (0, total), (stage, done, total)
            falls = [later for now, later in itertools.pairwise(done) if later < now]
            assert set(falls) <= {0}, (stage, done)


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_cache(tmp_path: Path, told: Told) -> None:
    settings = CacheSettings(
        seq_len=32, rows_per_shard=128, max_rows=512, layers=(0,), top_k=4, tail_samples=4, batch_size=2
    )
    request = CacheRequest(
        model="demo", corpus="demo", store=tmp_path / "store", settings=settings, device="cpu"
    )
    write_cache(request, report=told)
    assert told.stages == [
        "hashing the model, file 1 of 1",
        "loading the model",
        "measure",
        "tokenise",
        "writing tokens",
        "examining the model",
        "hashing the text",
        "writing the plan",
        "cache",
    ]
    told.check()


def test_a_fit(demo_cache: Path, tmp_path: Path, told: Told) -> None:
    settings = FitSettings(layers=(0, 3), heads=(1,), steps=3, batch_rows=64, eval_rows=1024)
    request = FitRequest(store=demo_cache, lenses=tmp_path / "lenses", settings=settings, device="cpu")
    fit_lenses(request, report=told)
    assert told.stages == [
        "reading moments",
        "whitening",
        "closed form",
        "preparing the fit",
        "looking for a checkpoint",
        "mean output",
        "evaluate",
        "fit",
        "judge",
        "writing lenses",
    ]
    told.check()
    assert {report.total for report in told.reports if report.stage == "judge"} == {1024 - 1024 // 64}


def test_an_evaluation(demo_cache: Path, demo_lenses: Path, told: Told) -> None:
    evaluate(
        load_lenses(demo_lenses), open_cache(demo_cache), settings=EvaluateSettings(rows=300), report=told
    )
    assert told.stages == ["checking lenses", "preparing the readings", "eval", "intervals"]
    told.check()
    eval_done = [report.done for report in told.reports if report.stage == "eval"]
    assert len(eval_done) > 5, "a shard is not one step"


def test_verifying_and_exporting(demo_cache: Path, demo_lenses: Path, tmp_path: Path, told: Told) -> None:
    verify_cache(demo_cache, report=told)
    export.write(
        export.plan(load_lenses(demo_lenses), ExportRequest(form="z", dtype="float32")),
        tmp_path / "out",
        report=told,
    )
    assert told.stages == ["reading records", "verify", "export"]
    told.check()
