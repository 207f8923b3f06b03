from pathlib import Path

from alens.store.paths import StorePaths


def test_the_layout_of_a_sealed_cache(demo_cache: Path) -> None:
    assert sorted(path.name for path in demo_cache.iterdir()) == [
        "MANIFEST.json",
        "arrays.zarr",
        "commits",
        "plan.json",
        "tokens.npy",
    ]
    assert sorted(path.name for path in (demo_cache / "commits").iterdir()) == [
        *(f"{shard:06d}.json" for shard in range(6)),
        "model.json",
    ]


def test_shard_files_are_where_zarr_puts_them(demo_cache: Path) -> None:
    paths = StorePaths(demo_cache)
    assert paths.shard_file("sites/attn.z/03", 5, 3) == demo_cache / "arrays.zarr/sites/attn.z/03/c.5.0.0"
    assert paths.shard_file("sites/attn.z/03", 5, 3).is_file()
    assert paths.shard_file("rows/token", 5, 1).is_file()


def test_a_job_leaves_no_partial_file(demo_cache: Path) -> None:
    assert not list(demo_cache.rglob("*.partial"))
