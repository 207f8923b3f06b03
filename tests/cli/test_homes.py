"""HOME and the caches of libraries that may not be written to, as on many clusters, for what needs none of them."""

from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from alens import demo

from ..fake_hub import Hub

HOMES = ("HOME", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
         "MPLCONFIGDIR", "TMPDIR")  # fmt: skip
SETTINGS = (
    "--seq-len",
    32,
    "--rows-per-shard",
    256,
    "--max-rows",
    1024,
    "--layers",
    1,
    "--top-k",
    8,
    "--tail-samples",
    8,
)

READ_ONLY = """
# A file system that is mounted read-only, for root too.
import builtins, errno, io, os

def refusing(act, writes):
    def guarded(path, *given, **named):
        if str(path).startswith({place!r}) and writes(*given, **named):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return act(path, *given, **named)
    return guarded

builtins.open = io.open = refusing(open, lambda mode="r", *_, **__: mode[0] in "wax" or "+" in mode)
os.open = refusing(os.open, lambda flags, *_, **__: bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
os.mkdir = refusing(os.mkdir, lambda *_, **__: True)
"""


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """An environment in which no library has a place of its own: below a file, nobody can make a directory."""
    (tmp_path / "file").touch()
    return {name: str(tmp_path / "file" / name.lower()) for name in HOMES}


def texts(tmp_path: Path) -> dict[str, Path]:
    table = pq.read_table(demo.CORPUS).select(["text"])
    (tmp_path / "text.txt").write_text("\n".join(table["text"].to_pylist()))
    datasets.Dataset(table).save_to_disk(tmp_path / "arrow")
    return {"txt": tmp_path / "text.txt", "arrow": tmp_path / "arrow"}


@pytest.mark.slow
def test_a_local_model_and_text_need_no_home(tmp_path: Path, hub: Hub, nowhere: dict[str, str]) -> None:
    """Every step of the way, with the tables that `Dataset.save_to_disk` writes too."""
    text, store, lenses = texts(tmp_path), tmp_path / "store", tmp_path / "lenses"
    outcomes = hub.run(
        tmp_path,
        ("plan", demo.MODEL, text["arrow"], *SETTINGS),
        ("cache", demo.MODEL, text["arrow"], store, *SETTINGS),
        ("cache", demo.MODEL, text["txt"], tmp_path / "again", *SETTINGS),
        ("fit", store, lenses, "--steps", 3, "--batch-rows", 64, "--eval-rows", 60),
        ("eval", lenses, store, "--heat-map", tmp_path / "map.png"),
        ("read", lenses, "The king", "--html", tmp_path / "page.html"),
        env={**nowhere, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": ""},
    )
    assert [(outcome.code, outcome.stderr) for outcome in outcomes if outcome.code] == []
    assert hub.asked == []
    assert (tmp_path / "map.png").stat().st_size > 1000 and (tmp_path / "page.html").stat().st_size > 1000


@pytest.mark.slow
def test_a_hub_cache_that_may_only_be_read_is_read(tmp_path: Path, hub: Hub) -> None:
    """Also when the hub has a newer commit, which would be written there."""
    files = {path.name: path.read_bytes() for path in demo.MODEL.iterdir()}
    commit = hub.publish("shared/model", files)
    cache = ("cache", "shared/model", "demo")
    assert hub.run(tmp_path / "home", (*cache, tmp_path / "a", *SETTINGS))[0].code == 0
    newer = hub.publish("shared/model", {"README.md": b"another"})
    snapshots = tmp_path / "home/hub/models--shared--model/snapshots"
    assert [path.name for path in snapshots.iterdir()] == [commit]
    (tmp_path / "sitecustomize.py").write_text(READ_ONLY.format(place=str(tmp_path / "home")))
    again = hub.run(
        tmp_path / "home", (*cache, tmp_path / "b", *SETTINGS), env={"PYTHONPATH": str(tmp_path)}
    )[0]
    assert again.code == 0, again.stderr
    assert (
        "home/hub (Read-only file system): taking the copy of shared/model that it has, of commit"
        in again.stderr
    )
    assert (
        commit[:12] in again.stderr
        and newer != commit
        and [path.name for path in snapshots.iterdir()] == [commit]
    )


def test_a_hub_cache_that_cannot_be_written_and_lacks_the_model_is_one_line(
    tmp_path: Path, hub: Hub, nowhere: dict[str, str]
) -> None:
    hub.publish("lacking/model", {path.name: path.read_bytes() for path in demo.MODEL.iterdir()})
    outcome = hub.run(tmp_path, ("cache", "lacking/model", "demo", tmp_path / "store"), env=nowhere)[0]
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[-1] == (
        f"alens: cannot write to the hub cache {nowhere['HF_HUB_CACHE']} (Not a directory), and it has no copy of "
        "lacking/model: set HF_HOME to a place of your own, or have it fetched there with `hf download lacking/model`"
    )
    assert not (tmp_path / "store").exists()
