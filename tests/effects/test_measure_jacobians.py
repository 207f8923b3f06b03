"""Jacobians of heads: what autograd says of the whole model, position by position, on rows that the cache has."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens.effects.mean_jacobian import mean_jacobian
from alens.effects.measure_jacobians import measure_jacobians
from alens.effects.settings import JacobianRequest, JacobianSettings
from alens.errors import DamageError, RequestError, StoppedError
from alens.heads import Heads
from alens.job.worker import Worker
from alens.model.gradient_pass import GradientPass
from alens.store.cache_reader import open_cache
from alens.store.jacobian_files import JacobianFiles
from alens.store.jacobian_reader import JacobianStore
from alens.store.paths import LATER_POSITIONS, SAME_POSITION, Reach
from alens.store.verify import verify_cache

from ..damage import flip


def measure(store: Path, worker: Worker | None = None, should_stop: Any = None, **settings: Any) -> Any:
    request = JacobianRequest(
        store=store, settings=JacobianSettings(**settings), device="cpu", worker=worker or Worker()
    )
    return measure_jacobians(request, should_stop=should_stop or (lambda: False))


@pytest.fixture(scope="module")
def measured(document_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document cache with Jacobians of all its heads on two shards of sequences. Shared."""
    store = tmp_path_factory.mktemp("measured") / "cache"
    shutil.copytree(document_cache, store)
    summary = measure(store, rows=1024, probes=4)
    assert summary.complete and summary.heads == 12
    return store


def exact(clean: GradientPass, layer: int, head: int, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(E,) row `axis` of the mean Jacobian at the same position, and over later ones: a pass for each target."""
    _, length, _ = clean.stream_BTD.shape
    same, later = [], []
    for target in range(1, length):
        probe_BTD = torch.zeros(clean.stream_BTD.shape)
        probe_BTD[:, target, axis] = 1
        part_BTE = clean.gradients(probe_BTD)[layer][:, :, head]
        same.append(part_BTE[:, target].mean(0))
        later.append(part_BTE[:, 1:].sum(1).mean(0))
    return torch.stack(same).mean(0), torch.stack(later).sum(0) / (length - 1)


def test_it_is_what_autograd_gives_target_by_target(model: Any) -> None:
    tokens_BT = torch.arange(400, 424).view(2, 12)
    draws, heads, axis = np.random.default_rng(0), {0: [1, 2], 3: [5]}, 5

    def measured(tokens_BT: torch.Tensor, reach: Reach) -> tuple[GradientPass, torch.Tensor]:
        clean = GradientPass(model, tokens_BT, [0, 3])
        return clean, mean_jacobian(clean, heads, reach, 192, draws, lambda: None)[0][:, 1, axis]

    clean, later_E = measured(tokens_BT, LATER_POSITIONS)
    np.testing.assert_allclose(later_E, exact(clean, 0, 2, axis)[1], rtol=1e-3, atol=1e-5)
    clean, same_E = measured(tokens_BT[:, :2], SAME_POSITION)  # nothing comes later
    np.testing.assert_allclose(same_E, exact(clean, 0, 2, axis)[0], rtol=1e-3, atol=1e-5)
    clean, same_E = measured(tokens_BT, SAME_POSITION)
    same, later = exact(clean, 0, 2, axis)
    assert (same_E - same).norm() < 0.5 * same.norm() < (same - later).norm()


def test_the_reader_says_how_certain_the_mean_is(measured: Path, model: Any) -> None:
    first, last = (JacobianStore(open_cache(measured)).mean(layer) for layer in (0, 3))
    assert first[0].shape == (6, 32, 192)
    # the last layer acts at its own position alone, so that probes add nothing from later ones
    assert 0 < last[1].max() < first[1].min()
    W_O_HED = model.W_O_LHED[3].numpy()
    norms_H = np.linalg.norm(last[0], axis=(1, 2)) * np.linalg.norm(W_O_HED, axis=(1, 2))
    assert ((last[0] * W_O_HED).sum((1, 2)) / norms_H > 0.5).all()


def test_each_reach_is_measured_by_itself(copy_of: Callable[[Path], Path], document_cache: Path) -> None:
    store = copy_of(document_cache)
    # 8 sequences, an axis each in a pass
    assert measure(store, rows=1, heads="3.1", reach=LATER_POSITIONS, probes=4).passes == 24
    cache = open_cache(store)
    assert np.isnan(JacobianStore(cache, reach=LATER_POSITIONS).mean(3)[1]).all()
    with pytest.raises(RequestError, match="holds no same-position Jacobians of heads: run `alens jacobians"):
        JacobianStore(cache)


def test_sequences_are_of_documents_that_are_not_held_out(measured: Path) -> None:
    cache = open_cache(measured)
    shards = np.array(JacobianStore(cache).sequences) // cache.plan.settings.sequences_per_shard
    assert not set(shards) & set(cache.plan.shards_of_held_out_documents)


def test_what_is_asked_for_later_is_added_and_nothing_is_measured_twice(
    copy_of: Callable[[Path], Path], measured: Path
) -> None:
    store = copy_of(measured)
    assert measure(store, rows=1024).passes == 0
    assert measure(store, rows=1025, heads="3.1", probes=2).passes == 2
    assert len(JacobianStore(open_cache(store)).sequences) == 16
    assert len(JacobianStore(open_cache(store), Heads(((3, 1),))).sequences) == 24


def test_two_workers_and_a_stopped_run_give_the_same(
    copy_of: Callable[[Path], Path], document_cache: Path, measured: Path
) -> None:
    store = copy_of(document_cache)
    asked = iter([False] * 3)
    with pytest.raises(StoppedError, match="run again to go on"):
        measure(store, Worker(index=1, count=2), lambda: next(asked, True), rows=1024, probes=4)
    assert not measure(store, Worker(index=1, count=2), rows=1024, probes=4).complete
    assert measure(store, Worker(index=0, count=2), rows=1024, probes=4).complete
    for layer in (0, 3):
        ours, theirs = (JacobianStore(open_cache(path)).mean(layer)[0] for path in (store, measured))
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4)


def test_damage_is_named_by_verify_and_refused_by_the_reader(
    copy_of: Callable[[Path], Path], measured: Path
) -> None:
    store = copy_of(measured)
    assert verify_cache(store).findings == ()
    cache = open_cache(store)
    file = next(iter(JacobianFiles(store, cache.plan.identity, "same-position").of_shard(0)))
    flip(file.path)
    verdict = verify_cache(store)
    assert [finding.path for finding in verdict.findings] == [file.path.relative_to(store).as_posix()]
    assert "alens jacobians" in verdict.findings[0].mend
    with pytest.raises(
        DamageError, match="is not what was written: remove it, and run `alens jacobians` again"
    ):
        JacobianStore(cache).mean(file.record.layer)


def test_heads_that_are_not_cached_are_refused(document_cache: Path) -> None:
    with pytest.raises(RequestError, match="layer 1 is not in"):
        measure(document_cache, layers=(1,))
    with pytest.raises(RequestError, match="probes is 0: it must be at least 1"):
        JacobianSettings(probes=0)
