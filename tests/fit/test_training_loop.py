"""A fit from cache to lenses, in one process: what it learns, that it repeats, and that it goes on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import load_lenses, open_cache
from alens.errors import DamageError, RequestError, RunError, StoppedError
from alens.fit import final_lenses, trainer
from alens.fit.engine import Engine
from alens.fit.recipe import Recipe
from alens.lens.directory import LensDirectory
from alens.lens.record import LensRecord
from alens.store import durable

from .. import documents
from ..damage import flip
from ..folders import entry_names
from ..lens_files import tensors

Fit = Callable[..., LensRecord]


def assert_identical(a: Path, b: Path) -> None:
    ours, expected = tensors(a), tensors(b)
    assert ours.keys() == expected.keys()
    assert [name for name in ours if not torch.equal(ours[name], expected[name])] == []


def assert_close(a: Path, b: Path) -> None:
    ours, expected = tensors(a), tensors(b)
    assert ours.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-4, atol=1e-5)


def held_out_kl(record: LensRecord) -> list[float]:
    return [head["kl"] for head in record.held_out["0"]]


# What it learns


@pytest.mark.parametrize("teacher", ["compressed", "exact"])
def test_a_lens_that_exists_is_found_to_nearly_zero_kl(fit: Fit, teacher: str) -> None:
    kl, _ = held_out_kl(fit("lenses", steps=100, batch_rows=256, lr=0.3, teacher=teacher))
    assert kl < 0.01


def test_a_head_that_knows_nothing_ends_at_the_mean_output(
    fit: Fit, planted_store: Path, tmp_path: Path
) -> None:
    _, noise = held_out_kl(fit("lenses", steps=60, batch_rows=512, lr=0.1, teacher="exact"))
    cache = open_cache(planted_store)
    rows = slice(11 * 512, 12 * 512)
    keep = cache.read("rows/position", rows) > 0
    logits_NV = cache.read("targets/final", rows)[keep].astype(np.float64) @ cache.weights("W_U")
    logits_NV += cache.weights("b_U")
    log_probs_NV = torch.from_numpy(logits_NV).log_softmax(-1)
    log_mean_V = load_lenses(tmp_path / "lenses").log_mean_output()
    mean_output = float((log_probs_NV.exp() * (log_probs_NV - log_mean_V)).sum(-1).mean())
    assert mean_output > 0.5
    assert noise == pytest.approx(mean_output, rel=0.05)


def test_min_position_and_heads_are_obeyed(fit: Fit, tmp_path: Path) -> None:
    record = fit("lenses", heads=(1,), min_position=3)
    assert (record.layers, record.heads, record.fit["min_position"]) == ((0,), (1,), 3)
    assert load_lenses(tmp_path / "lenses").layer(0).weight_HEV.shape == (1, 4, 96)


def test_heads_do_not_depend_on_which_others_are_fitted(fit: Fit, tmp_path: Path) -> None:
    fit("both")
    fit("one", heads=(1,))
    both, one = (tensors(tmp_path / name)["layer-00/weight"] for name in ("both", "one"))
    torch.testing.assert_close(one[0], both[1], rtol=1e-4, atol=1e-5)


def test_held_out_figures_and_the_log_tell_how_it_went(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "evaluation_steps", lambda *_: frozenset({10, 30, 50}))
    record = fit("lenses", steps=50, tolerance=0)
    lines = [json.loads(line) for line in (tmp_path / "lenses" / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["rows"]) for line in lines] == [(10, 1280), (30, 3840), (50, 6400)]
    known, noise = lines[-1]["held_out_loss"]["0"]
    assert (
        known == pytest.approx(held_out_kl(record)[0], abs=1e-5) and known < lines[0]["held_out_loss"]["0"][0]
    )
    assert noise > lines[-1]["mean_output_loss"] == pytest.approx(held_out_kl(record)[1], abs=1e-5)


def test_the_record_says_what_was_trained_on_and_held_out(fit: Fit, planted_store: Path) -> None:
    record = fit("lenses")
    assert record.cache["plan"] == open_cache(planted_store).plan.identity
    assert record.cache["train_shards"] == list(range(11))
    assert record.cache["held_out_shards"] == [11]
    assert record.fit["rows_seen"] == 20 * 128


def test_held_out_shards_are_never_read_for_training(
    fit: Fit,
    planted_store: Path,
    copy_of: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other numbers in the held-out shard change the figures, and not one bit of the trained lenses: they only decide
    which are kept, and here all are."""
    monkeypatch.setattr(final_lenses, "_silence", lambda *_: False)
    other = copy_of(planted_store)
    swapped, held_out = (other / f"arrays.zarr/sites/attn.z/00/c.{shard}.0.0" for shard in (3, 11))
    held_out.write_bytes(swapped.read_bytes())
    name, sha256 = "sites/attn.z/00/c.11.0.0", durable.sha256_of(held_out)
    documents.edit(other / "commits/000011.json", lambda body: body["files"][name].update(sha256=sha256))
    assert held_out_kl(fit("one")) != held_out_kl(fit("two", store=other))
    assert_identical(tmp_path / "one", tmp_path / "two")


def test_every_step_has_its_own_learning_rate_also_after_a_stop(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    step = Engine.step

    def watched(self: Engine, z_NHE: Any, teacher: Any, lr: float, *more: Any, **named: Any) -> torch.Tensor:
        taken.append(lr)
        return step(self, z_NHE, teacher, lr, *more, **named)

    monkeypatch.setattr(Engine, "step", watched)
    monkeypatch.setattr(trainer, "learning_rate", lambda peak, step, *_: peak / (1 + step))
    with pytest.raises(StoppedError):
        fit("lenses", lr=0.2, stop=8)
    fit("lenses", lr=0.2)
    falling = [0.2 / (1 + step) for step in range(20)]
    assert [lr for lr in taken if lr > 0] == pytest.approx(falling)  # 0: how a state is taken up again


# That it repeats


def test_the_same_seed_gives_the_same_bits(fit: Fit, tmp_path: Path) -> None:
    fit("one")
    fit("two")
    assert_identical(tmp_path / "one", tmp_path / "two")


def test_another_seed_gives_another_order_and_other_lenses(fit: Fit, tmp_path: Path) -> None:
    fit("one")
    fit("two", seed=1)
    one, two = (tensors(tmp_path / name)["layer-00/weight"] for name in ("one", "two"))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_zero_stages_give_the_same_lenses(fit: Fit, tmp_path: Path, zero: int) -> None:
    fit("whole")
    fit("partitioned", zero=zero)
    assert_close(tmp_path / "partitioned", tmp_path / "whole")


# That it goes on


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_stopped_and_run_again_it_ends_bit_for_bit_the_same(fit: Fit, tmp_path: Path, zero: int) -> None:
    fit("undisturbed", zero=zero)
    for stop in (7, 6):
        with pytest.raises(
            StoppedError, match=r"stopped after step .* of 20 \(saved in .*run again to go on"
        ):
            fit("stopped", zero=zero, stop=stop)
    fit("stopped", zero=zero)
    assert_identical(tmp_path / "stopped", tmp_path / "undisturbed")


def test_stopped_under_one_zero_stage_it_goes_on_under_another(fit: Fit, tmp_path: Path) -> None:
    fit("undisturbed")
    for zero in (0, 3, 1, 2):
        with pytest.raises(StoppedError):
            fit("stopped", zero=zero, stop=4)
    fit("stopped", zero=0)
    assert_close(tmp_path / "stopped", tmp_path / "undisturbed")


def test_stopped_before_the_first_step_it_says_that_nothing_was_learnt(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"after step 0 of 20 \(nothing was learnt yet\)"):
        fit("stopped", stop=0)
    assert not (tmp_path / "stopped" / "checkpoints").exists()


def test_stopped_again_at_once_it_keeps_what_it_had(fit: Fit, tmp_path: Path) -> None:
    for stop in (5, 0):
        with pytest.raises(StoppedError, match="after step 5"):
            fit("stopped", stop=stop)
    assert [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["step-00000005"]


def test_two_checkpoints_are_kept_on_the_way_and_none_at_the_end(fit: Fit, tmp_path: Path) -> None:
    folder = tmp_path / "lenses" / "checkpoints"
    with pytest.raises(StoppedError):
        fit("lenses", every=3, stop=13)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000012", "step-00000013"]
    fit("lenses", every=3)
    assert not folder.exists()


def test_what_a_kill_right_after_the_end_left_goes_with_the_next_run(fit: Fit, tmp_path: Path) -> None:
    lenses = tmp_path / "lenses"
    with pytest.raises(StoppedError):
        fit("lenses", stop=5)
    shutil.copytree(lenses / "checkpoints", tmp_path / "checkpoints")
    fit("lenses")
    finished = entry_names(lenses)
    shutil.move(tmp_path / "checkpoints", lenses / "checkpoints")
    (lenses / "stopped.json").write_text('{"step": 5, "steps": 20}\n')
    fit("lenses")
    assert entry_names(lenses) == finished


def test_a_damaged_newest_checkpoint_costs_its_steps_and_no_more(fit: Fit, tmp_path: Path) -> None:
    fit("undisturbed")
    with pytest.raises(StoppedError):
        fit("stopped", every=5, stop=13)
    state = tmp_path / "stopped/checkpoints/step-00000013/state.safetensors"
    state.write_bytes(state.read_bytes()[:-40])
    fit("stopped")
    assert_identical(tmp_path / "stopped", tmp_path / "undisturbed")


def test_damaged_checkpoints_alone_start_it_anew(fit: Fit, tmp_path: Path) -> None:
    fit("undisturbed")
    with pytest.raises(StoppedError):
        fit("stopped", stop=13)
    (tmp_path / "stopped/checkpoints/step-00000013/checkpoint.json").unlink()
    fit("stopped")
    assert_identical(tmp_path / "stopped", tmp_path / "undisturbed")


def test_a_finished_fit_is_left_as_it_is(fit: Fit, tmp_path: Path) -> None:
    record = fit("lenses")
    before = {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "lenses").iterdir()
    }
    assert fit("lenses") == record
    after = {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "lenses").iterdir()
    }
    assert after == before


# What can go wrong


def test_a_learning_rate_that_explodes_says_so(fit: Fit) -> None:
    with pytest.raises(RunError, match=r"at step 8 the loss of 0\.0, 0\.1 has diverged .*take a lower --lr"):
        fit("lenses", lr=3e37)


def test_a_damaged_shard_is_named_and_no_lenses_are_written(
    fit: Fit, planted_store: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    store = copy_of(planted_store)
    flip(store / "arrays.zarr/targets/tail_ids/c.4.0", 100)
    with pytest.raises(DamageError, match=r"tail_ids.*shard 4"):
        fit("lenses", store=store, steps=60)
    assert not (tmp_path / "lenses" / "lens.json").exists()


def test_a_full_disk_at_the_end_is_one_line_and_the_fit_can_go_on(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("undisturbed")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LensDirectory, "_put_tensors", full)
        with pytest.raises(RunError, match="No space left on device"):
            fit("lenses", every=8)
    assert not (tmp_path / "lenses" / "lens.json").exists()
    fit("lenses")
    assert_identical(tmp_path / "lenses", tmp_path / "undisturbed")


# What it is told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lens": "low-rank", "lens_options": {"rank": 5}}, "rank is 5"),
        ({"lens": "tuned"}, "reads the residual stream"),
        ({"lens": "linear", "lens_options": {"rank": 2}}, "has no option 'rank'"),
    ],
)
def test_a_design_that_cannot_be_leaves_nothing_behind(
    fit: Fit, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        fit("lenses", **settings)
    assert not (tmp_path / "lenses").exists()


def test_a_design_that_cannot_be_takes_nothing_from_a_begun_fit(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedError):
        fit("lenses", stop=3)
    before = sorted(path.name for path in (tmp_path / "lenses").iterdir())

    def refuse(*_: object) -> None:
        raise RequestError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "design", refuse)
        with pytest.raises(RequestError):
            fit("lenses")
    after = {path.name for path in (tmp_path / "lenses").iterdir()}
    assert set(before) - {"stopped.json"} == after  # a run takes the marker of the last one away


def test_train_rows_are_bounded_in_whole_shards(fit: Fit) -> None:
    assert fit("lenses", rows=513, steps=2).cache["train_shards"] == [0, 1]


@pytest.mark.parametrize("objective", ["forward-kl", "reverse-kl"])
@pytest.mark.parametrize("zero", [1, 2])
def test_in_bfloat16_it_finds_nearly_the_same_lenses(
    fit: Fit, tmp_path: Path, objective: str, zero: int
) -> None:
    (tmp_path / "ds.json").write_text('{"bf16": {"enabled": true}}')
    given = {"objective": objective, "teacher": "exact", "steps": 40, "tolerance": 0}
    whole, low = fit("whole", **given), fit("low", zero=zero, deepspeed=tmp_path / "ds.json", **given)
    assert held_out_kl(low) == pytest.approx(held_out_kl(whole), rel=0.05)


def test_a_configuration_that_deepspeed_refuses_is_one_line(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 1, "reduce_bucket_size": "much"}}')
    with pytest.raises(RequestError, match=r"DeepSpeed refuses its configuration: .*reduce_bucket_size") as e:
        fit("lenses", zero=None, deepspeed=tmp_path / "ds.json")
    assert "\n" not in str(e.value) and not (tmp_path / "lenses").exists()
