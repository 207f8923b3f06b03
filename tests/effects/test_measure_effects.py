"""Effects of heads: what the model loses without them, as a whole pass of the model says, on rows that the cache has."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens.effects.effect_sample import sample_order, sample_shards
from alens.effects.measure_effects import measure_effects
from alens.effects.settings import EffectRequest, EffectSettings
from alens.errors import DamageError, RequestError, RunError, StoppedError
from alens.heads import Heads
from alens.job.worker import Worker
from alens.model import partial_pass
from alens.model.edits import Edit, run_edited
from alens.rows import moments
from alens.store import head_files
from alens.store.cache_reader import open_cache
from alens.store.effect_files import EffectFiles
from alens.store.effect_reader import open_effects
from alens.store.verify import verify_cache

from ..damage import flip


def measure(store: Path, worker: Worker | None = None, should_stop: Any = None, **settings: Any) -> Any:
    request = EffectRequest(
        store=store, settings=EffectSettings(**settings), device="cpu", worker=worker or Worker()
    )
    return measure_effects(request, should_stop=should_stop or (lambda: False))


@pytest.fixture(scope="module")
def measured(document_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document cache with effects of all its heads on two shards of effects. Shared."""
    store = tmp_path_factory.mktemp("measured") / "cache"
    shutil.copytree(document_cache, store)
    summary = measure(store, rows=1024)
    assert summary.complete and summary.effects_measured == summary.rows * 12
    return store


def test_an_effect_is_what_a_whole_pass_with_the_mean_in_the_place_of_z_lacks(
    measured: Path, model: Any
) -> None:
    effects = open_effects(measured)
    cache, rows = effects.cache, effects.rows
    assert effects.heads == Heads.grid((0, 3), range(6))
    sequence = int(rows.sequence_N[0])
    tokens_1T = torch.from_numpy(cache.tokens[sequence : sequence + 1].astype(np.int64))
    here = rows.sequence_N == sequence
    full_TD = run_edited(model, tokens_1T, [])[0]
    for layer, head in ((0, 2), (3, 5)):
        mean_E = torch.from_numpy(moments.of_cache(cache, [layer], cache.shards).mean_LHE[0, head]).float()
        without_TD = run_edited(
            model,
            tokens_1T,
            [Edit(layer=layer, head=head, z=lambda z, mean=mean_E: mean.expand_as(z))],  # type: ignore[misc]
        )[0]
        effect_TD = effects.delta(layer)[here, head].astype(np.float32)
        expected_TD = (full_TD - without_TD)[1:].numpy()
        assert np.abs(expected_TD).max() > 0.01
        np.testing.assert_allclose(effect_TD, expected_TD, rtol=2e-3, atol=2e-5)


def test_rows_say_where_they_are_and_which_are_held_out(measured: Path) -> None:
    effects = open_effects(measured)
    cache, rows = effects.cache, effects.rows
    assert len(rows) == effects.delta(0).shape[0]
    np.testing.assert_array_equal(cache.read("rows/sequence", rows.row_N), rows.sequence_N)
    np.testing.assert_array_equal(cache.read("rows/position", rows.row_N), rows.position_N)
    assert rows.position_N.min() == 1
    np.testing.assert_array_equal(
        rows.held_out_N, np.isin(rows.shard_N, list(cache.plan.shards_of_held_out_documents))
    )
    assert 0.2 <= rows.held_out_N.mean() < 1
    assert not set(rows.document_N[rows.held_out_N]) & set(rows.document_N[~rows.held_out_N])


def test_a_sample_is_the_beginning_of_every_larger_one_and_takes_each_document_before_a_second_time(
    document_cache: Path,
) -> None:
    cache = open_cache(document_cache)
    order = sample_order(cache)
    assert sorted(order) == list(range(cache.plan.tokens.sequences))
    taken = [sequence for shard in sample_shards(cache, 600) for sequence in shard]
    assert taken == order[: len(taken)] and 600 <= len(taken) * 64 < len(order) * 64
    vars(cache)["documents"] = np.arange(len(order)) // 4  # four sequences a document
    order = sample_order(cache)
    for held_out in (True, False):
        documents = [
            sequence // 4
            for sequence in order
            if (sequence // 16 in cache.plan.shards_of_held_out_documents) == held_out
        ]
        turns = [documents[:at].count(document) for at, document in enumerate(documents)]
        assert turns == sorted(turns) and turns[-1] == 3


def test_heads_and_rows_that_are_asked_for_later_are_added_and_nothing_is_measured_twice(
    copy_of: Callable[[Path], Path], demo_cache: Path
) -> None:
    store = copy_of(demo_cache)
    assert measure(store, rows=1, heads="3.1,3.4").effects_measured == 8 * 63 * 2
    before = open_effects(store).delta(3)
    written = {path: path.stat().st_mtime_ns for path in (store / "effects").rglob("*.npy")}
    assert measure(store, rows=1, layers=(3,)).effects_measured == 8 * 63 * 4
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    assert measure(store, rows=1, layers=(3,)).effects_measured == 0
    after = open_effects(store).delta(3)
    np.testing.assert_array_equal(after[:, [1, 4]], before)
    assert measure(store, rows=600, layers=(3,)).effects_measured == 8 * 63 * 6
    assert len(open_effects(store).rows) == 16 * 63
    # the first shard lacks other layers than the second
    assert measure(store, rows=600, layers=(2, 3), heads="2.0,3.0").effects_measured == 16 * 63
    assert measure(store, rows=1100, layers=(2, 3), heads="2.0,3.0").effects_measured == 8 * 63 * 2
    assert measure(store, rows=1, layers=(0,)).effects_measured == 8 * 63 * 6
    assert measure(store, rows=600, layers=(0, 2)).effects_measured == 8 * 63 * (5 + 11)
    with pytest.raises(RequestError, match=r"holds no effects of head 1\.0: run `alens effects"):
        open_effects(store, Heads(((1, 0),)))


def test_two_workers_and_a_stopped_run_give_the_same_effects(
    copy_of: Callable[[Path], Path], document_cache: Path, measured: Path
) -> None:
    store = copy_of(document_cache)
    asked = iter([False, False, False, True])
    with pytest.raises(StoppedError, match="run again to go on"):
        measure(store, Worker(index=1, count=2), lambda: next(asked, True), rows=1024)
    assert not measure(store, Worker(index=1, count=2), rows=1024).complete
    assert measure(store, Worker(index=0, count=2), rows=1024).complete
    ours, theirs = open_effects(store), open_effects(measured)
    np.testing.assert_array_equal(ours.rows.row_N, theirs.rows.row_N)
    for layer in (0, 3):
        np.testing.assert_allclose(
            ours.delta(layer).astype(np.float32), theirs.delta(layer).astype(np.float32), atol=2e-5, rtol=2e-3
        )


def test_a_model_that_cannot_begin_at_a_layer_runs_all_layers(
    copy_of: Callable[[Path], Path], demo_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    quick, slow = copy_of(demo_cache), copy_of(demo_cache)
    measure(quick, rows=1, heads="2.3")
    monkeypatch.setattr(partial_pass, "_give_back", lambda *_, **__: None)
    measure(slow, rows=1, heads="2.3")
    assert "each pass runs all layers" in caplog.text
    np.testing.assert_allclose(
        open_effects(slow).delta(2).astype(np.float32),
        open_effects(quick).delta(2).astype(np.float32),
        atol=2e-5,
        rtol=2e-3,
    )


def test_a_cache_without_rows_or_unfinished_is_refused(
    copy_of: Callable[[Path], Path], demo_cache: Path
) -> None:
    store = copy_of(demo_cache)
    (store / "MANIFEST.json").unlink()
    with pytest.raises(RequestError, match="is not sealed, and the mean of z is over the whole cache"):
        measure(store)
    with pytest.raises(RequestError, match="layer 9 is not in"):
        measure(demo_cache, layers=(9,))
    with pytest.raises(RequestError, match="holds no effects of heads: run `alens effects"):
        open_effects(demo_cache)


def test_a_kill_between_array_and_record_leaves_what_does_not_count(
    copy_of: Callable[[Path], Path], demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy_of(demo_cache)
    put = head_files.durable.put

    def fails(path: Path, *parts: Any, **more: Any) -> None:
        if path.suffix == ".json":
            raise OSError(28, "No space left on device", str(path))
        put(path, *parts, **more)

    monkeypatch.setattr(head_files.durable, "put", fails)
    with pytest.raises(RunError, match="No space left on device"):
        measure(store, rows=1, heads="3.1")
    monkeypatch.undo()
    assert verify_cache(store).findings == ()
    with pytest.raises(RequestError, match="holds no effects"):
        open_effects(store)
    assert measure(store, rows=1, heads="3.1").complete


def test_damage_is_named_by_verify_and_refused_by_the_reader(
    copy_of: Callable[[Path], Path], measured: Path
) -> None:
    store = copy_of(measured)
    assert verify_cache(store).whole
    array, other = sorted((store / "effects").rglob("*.npy"))[:2]
    flip(array)
    record = other.with_suffix(".json")
    body = json.loads(record.read_text())
    record.write_text(json.dumps({**body, "shard": 7}, indent=1) + "\n")
    verdict = verify_cache(store)
    assert {finding.path for finding in verdict.findings if finding.fails} == {
        array.relative_to(store).as_posix(),
        record.relative_to(store).as_posix(),
    }
    assert all("alens effects" in finding.mend for finding in verdict.findings)
    with pytest.raises(DamageError, match="is not what was written: remove it"):
        open_effects(store, Heads(((0, 0),))).delta(0)


def test_what_the_model_computes_again_agrees_and_effects_that_were_wrong_when_written_do_not(
    copy_of: Callable[[Path], Path], measured: Path, run_alens: Any
) -> None:
    code, out, _ = run_alens("verify", measured, "--deep", 400, "--device", "cpu")
    assert code == 0 and "effects of 6 heads on whole sequences were computed again" in out
    assert any(line.startswith("agrees      effects/0") for line in out.splitlines())
    store = copy_of(measured)
    cache = open_cache(store)
    files = EffectFiles(store, cache.plan.identity)
    for file in [file for shard in files.shards() for file in files.of_shard(shard)]:
        record = file.record
        values_NHD = file.read(record.rows, cache.plan.model.d_model)
        note = {"sequences": list(record.sequences), "mean_sha256": record.mean_sha256}
        files.put(record.shard, record.layer, record.heads, values_NHD[:, ::-1].copy(), note)
    assert run_alens("verify", store).code == 0
    code, out, err = run_alens("verify", store, "--deep", 1, "--device", "cpu")
    assert code == 1 and "differs     effects/0" in out
    assert err.rstrip().endswith(f"move {store}/effects away, then run `alens effects` again")
    assert "effects of one head on whole sequences were computed again" in out


def test_records_of_another_cache_do_not_count(
    copy_of: Callable[[Path], Path], measured: Path, demo_cache: Path
) -> None:
    store = copy_of(demo_cache)
    shutil.copytree(measured / "effects", store / "effects")
    with pytest.raises(RequestError, match="holds no effects"):
        open_effects(store)


def test_settings_are_checked() -> None:
    with pytest.raises(RequestError, match="rows is 0: it must be at least 1"):
        EffectSettings(rows=0)
    assert dataclasses.replace(EffectSettings(), heads="18.6").heads == ("18.6",)
