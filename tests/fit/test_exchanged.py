"""Files of one size that were swapped, and a cache that was replaced while it was read: refused, nothing written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from alens import EvaluateSettings, FitRequest, evaluate, fit_lenses, load_lenses, open_cache
from alens.errors import DamageError
from alens.fit.settings import FitSettings
from alens.heads import Heads
from alens.job.progress import Progress
from alens.rows.columns import RowReader

Copy = Callable[[Path], Path]
Plant = Callable[..., None]

LAYERS = (0, 3)
READ_BY_A_FIT = (
    "sites/attn.z/00/c.0.0.0",
    "sites/attn.z/03/c.0.0.0",
    "targets/ids/c.0.0",
    "targets/log_probs/c.0.0",
    "targets/logsumexp/c.0",
    "targets/entropy/c.0",
    "targets/tail_ids/c.0.0",
    "rows/position/c.0",
    "stats/output/c.0.0",
    "stats/attn.z/00/sum/c.0.0.0",
    "stats/attn.z/00/outer/c.0.0.0.0",
)
READ_BY_EVAL = (
    "sites/attn.z/00/c.5.0.0",
    "targets/final/c.5.0",
    "targets/entropy/c.5",
    "targets/ids/c.5.0",
    "rows/sequence/c.5",
    "rows/position/c.5",
)


def exchange(store: Path, one: str, other: str) -> None:
    """Swap two files of a cache."""
    first, second = store / "arrays.zarr" / one, store / "arrays.zarr" / other
    assert first.stat().st_size == second.stat().st_size and first.read_bytes() != second.read_bytes()
    aside = first.with_suffix(".aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def in_shard(name: str, shard: int) -> str:
    """The file of an array in another shard."""
    array, _, chunk = name.rpartition("/")
    return f"{array}/" + ".".join(["c", str(shard), *chunk.split(".")[2:]])


def fit(store: Path, lenses: Path, **more: object) -> None:
    settings = FitSettings(layers=LAYERS, batch_rows=512, eval_rows=1024, steps=4)
    fit_lenses(FitRequest(store=store, lenses=lenses, settings=settings, device="cpu"), **more)


@pytest.mark.parametrize("name", READ_BY_A_FIT)
def test_files_of_two_shards_that_changed_places_are_refused(
    demo_cache: Path, copy_of: Copy, tmp_path: Path, name: str
) -> None:
    store = copy_of(demo_cache)
    exchange(store, in_shard(name, 1), in_shard(name, 2))
    with pytest.raises(
        DamageError, match=r"is not the file that was committed: its SHA-256 is another"
    ) as caught:
        fit(store, tmp_path / "lenses")
    assert any(str(store / "arrays.zarr" / in_shard(name, shard)) in str(caught.value) for shard in (1, 2))
    assert not (tmp_path / "lenses" / "lens.json").exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sites/attn.z/00/c.1.0.0", "sites/attn.z/03/c.1.0.0"),
        ("stats/attn.z/00/sum/c.1.0.0", "stats/attn.z/03/sum/c.1.0.0"),
        ("stats/attn.z/00/outer/c.1.0.0.0", "stats/attn.z/03/outer/c.1.0.0.0"),
        ("targets/ids/c.1.0", "targets/tail_ids/c.1.0"),
        ("targets/logsumexp/c.1", "targets/entropy/c.1"),
    ],
)
def test_files_of_two_arrays_that_changed_places_are_refused(
    demo_cache: Path, copy_of: Copy, tmp_path: Path, one: str, other: str
) -> None:
    store = copy_of(demo_cache)
    exchange(store, one, other)
    with pytest.raises(DamageError, match=r"is not the file that was committed"):
        fit(store, tmp_path / "lenses")
    assert not (tmp_path / "lenses" / "lens.json").exists()


@pytest.mark.parametrize("name", READ_BY_EVAL)
def test_eval_refuses_them_too(demo_lenses: Path, demo_cache: Path, copy_of: Copy, name: str) -> None:
    """Also where it reads only some of the rows."""
    store = copy_of(demo_cache)
    exchange(store, name, in_shard(name, 4))
    with pytest.raises(DamageError, match=r"is not the file that was committed"):
        evaluate(load_lenses(demo_lenses), open_cache(store), settings=EvaluateSettings(rows=100))


def test_weights_of_another_cache_are_refused(demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    file = store / "arrays.zarr/model/W_U/c.0.0"
    blob = bytearray(file.read_bytes())
    half = len(blob) // 2
    file.write_bytes(blob[half:] + blob[:half])
    with pytest.raises(DamageError, match=r"model/W_U/c.0.0 is not the file that was committed"):
        open_cache(store).weights("W_U")


def test_processes_share_out_the_files_of_a_shard(demo_cache: Path, copy_of: Copy) -> None:
    """Each process reads its stretch of every file; together they compare whole files."""
    for name in ("sites/attn.z/00/c.1.0.0", "sites/attn.z/03/c.1.0.0", "targets/tail_ids/c.1.0"):
        store = copy_of(demo_cache)
        exchange(store, name, in_shard(name, 2))
        refused = 0
        for rank in range(4):
            reader = RowReader(
                open_cache(store), Heads.grid(LAYERS, range(6)), "compressed", 1, torch.device("cpu")
            )
            try:
                reader.shard(1, start=rank * 200, stop=(rank + 1) * 200, rank=rank, world_size=4)
            except DamageError:
                refused += 1
        assert refused == 1


@pytest.fixture
def two_caches(tmp_path: Path, plant: Plant) -> Iterator[tuple[Path, Path]]:
    """Two caches of the same shapes with other numbers."""
    plant(tmp_path / "one", num_shards=6)
    plant(tmp_path / "other", num_shards=6, seed=1)
    yield tmp_path / "one", tmp_path / "other"


@pytest.mark.parametrize("at", [2, 25, 40])
def test_a_cache_that_is_exchanged_during_a_fit_is_refused(
    two_caches: tuple[Path, Path], tmp_path: Path, at: int
) -> None:
    """In the first epoch, in a later one, and after the last read."""
    store, other = two_caches

    def swap(progress: Progress) -> None:
        if progress.stage == "fit" and progress.done == at:
            store.rename(tmp_path / "away")
            other.rename(store)

    settings = FitSettings(batch_rows=512, eval_rows=512, steps=40, tolerance=0.0)
    request = FitRequest(store=store, lenses=tmp_path / "lenses", settings=settings, device="cpu")
    with pytest.raises(DamageError) as caught:
        fit_lenses(request, report=swap)
    assert str(store) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not any((tmp_path / "lenses").glob("l*.json")) and not any(tmp_path.glob("lenses/*.safetensors"))


def test_each_file_is_hashed_once_a_process(demo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alens.store import checked_files

    hashed: list[Path] = []
    whole = checked_files.durable.sha256_of
    monkeypatch.setattr(checked_files.durable, "sha256_of", lambda path: hashed.append(path) or whole(path))
    reader = RowReader(
        open_cache(demo_cache), Heads.grid(LAYERS, range(6)), "compressed", 1, torch.device("cpu")
    )
    for _ in range(3):
        reader.shard(1)
        reader.shard(1, start=10, stop=20)
    assert len(hashed) == len(set(hashed)) == len(reader.names()) + 1  # and rows/position


def test_plan_and_records_are_looked_at_again(two_caches: tuple[Path, Path], tmp_path: Path) -> None:
    store, other = two_caches
    cache = open_cache(store)
    cache.read_shard("rows/position", 1)
    cache.check_unchanged()
    for name in ("plan.json", "commits/000001.json"):
        whole = (store / name).read_bytes()
        (store / name).write_bytes((other / name).read_bytes())
        with pytest.raises(
            DamageError, match=rf"^{store} is not the cache that was opened: it was exchanged"
        ):
            cache.check_unchanged()
        (store / name).write_bytes(whole)
    cache.check_unchanged()
