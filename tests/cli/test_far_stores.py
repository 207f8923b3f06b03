import sys
from pathlib import Path

import pytest

from ..conftest import Run
from ..folders import contents
from ..object_servers import FaultyServer
from ..outcomes import assert_one_line, refusal

FIT = [
    "--layers",
    "0",
    "--heads",
    "1",
    "--eval-rows",
    "1024",
    "--batch-rows",
    "512",
    "--steps",
    "4",
    "--device",
    "cpu",
]


def lenses(folder: Path) -> dict[str, bytes]:
    """All files but the log, which holds times."""
    return {name: content for name, content in contents(folder).items() if name != "log.jsonl"}


@pytest.mark.slow  # three fits
def test_lenses_from_an_address_are_those_from_the_directory(
    far_demo: str, demo_cache: Path, tmp_path: Path, run_alens: Run
) -> None:
    for store, name in ((far_demo, "far"), (demo_cache, "near")):
        assert run_alens("fit", store, tmp_path / name, *FIT).code == 0
    assert run_alens("fit", demo_cache, tmp_path / "staged", *FIT, "--stage", tmp_path / "disk").code == 0
    assert lenses(tmp_path / "far") == lenses(tmp_path / "near") == lenses(tmp_path / "staged")
    assert [path.name[:11] for path in (tmp_path / "disk").glob("demo-*")] == ["demo-cache-"]
    judged = [run_alens("eval", tmp_path / "far", store, "--json").stdout for store in (far_demo, demo_cache)]
    assert judged[0] == judged[1] != ""


def test_info_of_an_address_is_that_of_the_directory(far_demo: str, demo_cache: Path, run_alens: Run) -> None:
    far, near = run_alens("info", far_demo), run_alens("info", demo_cache)
    assert far.code == 0
    assert far.stdout.replace(far_demo, "") == near.stdout.replace(str(demo_cache), "")
    assert run_alens("info", far_demo, "--array", 4).stdout == ""


@pytest.mark.slow  # the server gives every file of the demo's cache three times
def test_verify_says_how_to_mend_a_cache_at_an_address(
    far_demo: str, run_alens: Run, faulty: FaultyServer
) -> None:
    whole = run_alens("verify", far_demo)
    assert (whole.code, whole.stderr) == (0, "") and "6 shards committed, 0 missing" in whole.stdout
    faulty.fail("flip", "attn.z/00/c.2.0.0")
    damaged = run_alens("verify", far_demo)
    assert damaged.code == 1 and "repairable" not in damaged.stdout
    assert damaged.stderr == (
        f"alens: 1 file damaged in {far_demo}: mend the cache that was copied there, and copy it again\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["cache", "demo", "demo", "s3://bucket/a"],
            "a cache is not written to s3://bucket/a: give a directory",
        ),
        (["effects", "s3://bucket/a"], "effects are not written to s3://bucket/a: give a directory"),
        (["jacobians", "s3://bucket/a"], "Jacobians are not written to s3://bucket/a: give a directory"),
        (
            ["verify", "--repair", "s3://bucket/a"],
            "--repair changes nothing at s3://bucket/a: give a directory",
        ),
        (["fit", "near", "s3://bucket/a"], "lenses are not written to s3://bucket/a: give a directory"),
        (["info", "gs://bucket/a"], "gs:/bucket/a is neither a cache"),
    ],
)
def test_writing_to_an_address_is_refused(run_alens: Run, arguments: list[str], says: str) -> None:
    assert says in refusal(run_alens(*arguments))


def test_a_network_that_fails_gives_one_line(far_demo: str, run_alens: Run, faulty: FaultyServer) -> None:
    faulty.fail("close", "plan.json")
    assert_one_line(run_alens("info", far_demo), 1, f"cannot read {far_demo}/plan.json: ", "3 tries in 0 s")


def test_without_obstore_the_line_says_what_to_install(
    run_alens: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert_one_line(run_alens("info", "s3://bucket/a"), 2, "which is not installed: pip install 'alens[s3]'")
