"""Layers one after the other: the same lenses as all at once, to the last bit, whatever stops the fit."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alens import FitRequest, fit_lenses
from alens.errors import DamageError, RequestError, StoppedError
from alens.fit import layer_groups
from alens.fit.fit_plan import divided
from alens.fit.settings import FitSettings
from alens.fit.trainer import Trainer
from alens.job.progress import Progress
from alens.lens.record import LensRecord

from ..stops import Stop

SETTINGS = FitSettings(layers=(1, 2, 3), heads=(0, 2), steps=6, batch_rows=256, eval_rows=1008)


@pytest.fixture
def request_of(demo_cache: Path, tmp_path: Path) -> Callable[..., FitRequest]:
    def made(name: str, layers_at_once: int | None = None, **more: object) -> FitRequest:
        return FitRequest(
            store=demo_cache,
            lenses=tmp_path / name,
            settings=SETTINGS,
            layers_at_once=layers_at_once,
            device="cpu",
            checkpoint_every=2,
            **more,  # type: ignore[arg-type]  # settings of a request
        )

    return made


@pytest.fixture(scope="module")
def whole(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lenses of all layers at once."""
    lenses = tmp_path_factory.mktemp("whole") / "lenses"
    fit_lenses(FitRequest(store=demo_cache, lenses=lenses, settings=SETTINGS, device="cpu"))
    assert "groups" not in json.loads((lenses / "fit.json").read_text())
    return lenses


def assert_same(grouped: Path, whole: Path) -> None:
    """The same files, the same figures, and nothing else left."""
    names = {path.name for path in grouped.iterdir()}
    assert names == {path.name for path in whole.iterdir()}
    for name in names - {"fit.json", "log.jsonl"}:
        assert (grouped / name).read_bytes() == (whole / name).read_bytes(), name


def test_groups_cover_the_layers_in_order_and_have_nearly_one_size() -> None:
    assert divided((3, 5, 8, 9, 11), 2) == ((3,), (5, 8), (9, 11))
    assert divided((3, 5), 2) is divided((3, 5), 7) is None


def test_lenses_are_those_of_all_layers_at_once(request_of: Callable[..., FitRequest], whole: Path) -> None:
    grouped, told = request_of("g", 2), list[Progress]()
    record = fit_lenses(grouped, report=told.append).record
    assert record.layers == (1, 2, 3) and record.fit["steps"] == 6
    steps = [(one.done, one.total) for one in told if one.unit == "steps"]
    assert steps[0] == (0, 12) and steps[-1] == (12, 12) and steps == sorted(steps)
    assert json.loads((grouped.lenses / "fit.json").read_text())["groups"] == [[1], [2, 3]]
    assert_same(grouped.lenses, whole)


def test_lenses_of_the_exact_teacher_are_too(request_of: Callable[..., FitRequest]) -> None:
    one, all_of_them = (
        replace(request_of(name, at_once), settings=replace(SETTINGS, teacher="exact", steps=3))
        for name, at_once in (("g", 1), ("w", None))
    )
    fit_lenses(one)
    fit_lenses(all_of_them)
    assert_same(one.lenses, all_of_them.lenses)


@pytest.mark.parametrize("after", [6, 9])
def test_a_fit_that_is_stopped_goes_on_where_it_was(
    request_of: Callable[..., FitRequest], whole: Path, after: int
) -> None:
    """Between two groups, and in the second."""
    grouped = request_of("g", 1)
    stop = Stop(after)
    with pytest.raises(StoppedError, match=f"stopped after step {after} of 18"):
        fit_lenses(grouped, report=stop.report, should_stop=stop)
    assert json.loads((grouped.lenses / "stopped.json").read_text()) == {"step": after, "steps": 18}
    assert fit_lenses(grouped).steps_taken == 18 - after
    assert_same(grouped.lenses, whole)


class KilledError(BaseException):
    """Stands for a process that ends."""


@pytest.mark.parametrize("place", ["after the record", "before the last"])
def test_a_fit_that_is_killed_between_groups_goes_on(
    request_of: Callable[..., FitRequest], whole: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def killed(*given: object) -> None:
        raise KilledError

    grouped = request_of("g", 1)
    with monkeypatch.context() as patched:
        if place == "after the record":  # the checkpoints of the first group stay
            patched.setattr(Trainer, "drop_checkpoints", killed)
        else:
            patched.setattr(layer_groups, "put_joined", killed)
        with pytest.raises(KilledError):
            fit_lenses(grouped)
    assert not (grouped.lenses / "lens.json").exists()
    assert fit_lenses(grouped).steps_taken == (12 if place == "after the record" else 0)
    assert_same(grouped.lenses, whole)


def test_by_default_as_many_layers_are_fitted_as_memory_holds(
    request_of: Callable[..., FitRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_groups, "ROWS_BYTES", 0)
    monkeypatch.setattr(layer_groups, "SHARE", 1.0)
    weights = 2 * 33 * 4096  # two linear lenses: E = 32 and a bias
    monkeypatch.setattr(layer_groups, "free_bytes", lambda device: 2 * weights * 32)
    fit_lenses(request_of("g"))
    body = json.loads((request_of("g").lenses / "fit.json").read_text())
    assert body["groups"] == [[1], [2, 3]]


def test_layers_count_as_the_largest_where_they_have_different_heads(
    request_of: Callable[..., FitRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_groups, "ROWS_BYTES", 0)
    monkeypatch.setattr(layer_groups, "SHARE", 1.0)
    monkeypatch.setattr(layer_groups, "free_bytes", lambda device: 2 * 33 * 4096 * 32)  # two linear lenses
    ragged = replace(SETTINGS, layers=None, heads="1.0,2.0-1", steps=1)
    fit_lenses(replace(request_of("g"), settings=ragged))
    assert json.loads((request_of("g").lenses / "fit.json").read_text())["groups"] == [[1], [2]]


def test_a_fit_keeps_the_groups_that_it_was_begun_with(
    request_of: Callable[..., FitRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop(8)
    with pytest.raises(StoppedError):
        fit_lenses(request_of("g", 1), report=stop.report, should_stop=stop)
    with pytest.raises(RequestError, match=r"layers_at_once is 2 \(begun: 1\)"):
        fit_lenses(request_of("g", 2))
    monkeypatch.setattr(layer_groups, "free_bytes", lambda device: 2**40)
    record: LensRecord = fit_lenses(request_of("g")).record
    assert record.layers == (1, 2, 3)


def test_a_record_of_a_group_that_was_altered_is_named(request_of: Callable[..., FitRequest]) -> None:
    stop = Stop(8)
    with pytest.raises(StoppedError):
        fit_lenses(request_of("g", 1), report=stop.report, should_stop=stop)
    path = request_of("g").lenses / "layer-groups" / "layer-01.json"
    path.write_text(path.read_text().replace("kl", "KL", 1))
    with pytest.raises(DamageError, match=r"layer-01\.json was altered.*delete"):
        fit_lenses(request_of("g"))


@pytest.mark.slow
def test_two_processes_fit_groups_to_the_same_lenses(demo_cache: Path, tmp_path: Path) -> None:
    for name, at_once in (("g", "1"), ("w", "3")):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "alens", "fit", str(demo_cache), str(tmp_path / name), "--layers", "1,2"]
        command += ["--heads", "0,2", "--steps", "6", "--batch-rows", "256", "--eval-rows", "1008"]
        command += ["--zero", "2", "--device", "cpu", "--layers-at-once", at_once]
        subprocess.run(command, check=True, capture_output=True, timeout=400)
    assert json.loads((tmp_path / "g" / "fit.json").read_text())["groups"] == [[1], [2]]
    assert_same(tmp_path / "g", tmp_path / "w")
