"""`alens publish` without a hub: the dry run, the folder it writes, and what it refuses before anything is sent.

Uploads are in tests/exchange/test_publish_to_the_hub.py. HF_HUB_OFFLINE is set in these tests.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..fake_hub import Hub, serving
from ..outcomes import assert_one_line

Copy = Callable[[Path], Path]
TO = ("--repo", "me/lenses")


@pytest.fixture
def hub_of_the_test() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


def test_a_dry_run_shows_everything_and_writes_nothing(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run_alens("publish", demo_lenses, *TO, "--store", demo_cache, "--private")
    assert outcome.code == 0, outcome.stderr
    for says in (
        "layer-03.safetensors",
        "cache/MANIFEST.json",
        "figures/held-out-kl.png",
        "missing: a license",
        "missing: a token of the hub",
        "to me/lenses, private, branch main",
        "dry run: nothing left this machine; --upload uploads it",
    ):
        assert says in outcome.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_has_the_same(run_alens: Any, demo_lenses: Path) -> None:
    outcome = run_alens("publish", demo_lenses, *TO, "--revision", "trial", "--json")
    body = json.loads(outcome.stdout)
    assert (outcome.code, body["uploaded"], body["private"], body["revision"]) == (0, None, False, "trial")
    assert body["bytes"] == sum(file["bytes"] for file in body["files"])
    layer = next(file for file in body["files"] if file["path"] == "layer-00.safetensors")
    assert layer["bytes"] == (demo_lenses / "layer-00.safetensors").stat().st_size
    assert body["message"].startswith("Lenses of demo, layers 0, 3 (alens ")


def test_the_bundle_is_written_where_it_is_asked_for(
    run_alens: Any, demo_lenses: Path, tmp_path: Path
) -> None:
    figure = tmp_path / "more.csv"
    figure.write_text("head,kl\n")
    out = tmp_path / "out"
    outcome = run_alens(
        "publish", demo_lenses, *TO, "--license", "cc-by-4.0", "--figures", figure, "--out", out
    )
    assert outcome.code == 0, outcome.stderr
    assert f"written to {out}" in outcome.stdout
    assert "missing: a license" not in outcome.stdout
    assert "\nlicense: cc-by-4.0\n" in (out / "README.md").read_text()
    assert (out / "figures" / "more.csv").read_text() == "head,kl\n"
    assert run_alens("info", out).code == 0
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["lenses", "me/", "me/a--b", "me/a b", "a/b/c", "../x", "me/x.git"])
def test_a_wrong_name_is_refused(run_alens: Any, demo_lenses: Path, name: str) -> None:
    assert_one_line(
        run_alens("publish", demo_lenses, "--repo", name),
        2,
        "is not the name of a repository: give OWNER/NAME",
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--license", "My License"), "is not a license as the hub names them"),
        (("--figures", "nowhere.png"), "nowhere.png does not exist"),
        (("--figures", "program.py"), "program.py is not a figure: figures are .png"),
        (("--figures", "held-out.json"), "held-out.json is there twice in figures/"),
        (("--figures", "one.md", "--figures", "one.md"), "one.md is there twice in figures/"),
        (("--store", "nowhere"), "nowhere"),
        (("--upload",), "HF_HUB_OFFLINE is set: unset it to upload; nothing was sent"),
        (("--upload", "--revision", "a b"), "'a b' is not the name of a branch"),
        (("--revision", "-x"), "'-x' is not the name of a branch"),
        (("--revision", ""), "'' is not the name of a branch"),
        (("--out", "hf://me/lenses"), "hf://me/lenses is on the hub: write to a directory"),
    ],
)
def test_a_wrong_request_is_one_line(
    run_alens: Any,
    demo_lenses: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("program.py", "held-out.json", "one.md"):
        Path(name).touch()
    assert_one_line(run_alens("publish", demo_lenses, *TO, *options), 2, says)


def test_what_holds_no_lenses_is_refused(run_alens: Any, tmp_path: Path) -> None:
    assert_one_line(run_alens("publish", tmp_path, *TO), 2, "holds no lenses")


def test_lenses_on_the_hub_are_not_published_again(run_alens: Any) -> None:
    assert_one_line(run_alens("publish", "hf://me/a", *TO), 2, "hf://me/a is on the hub")


def test_a_folder_that_is_taken_is_refused_before_the_work(
    run_alens: Any, demo_lenses: Path, copy_of: Copy
) -> None:
    outcome = run_alens("publish", demo_lenses, *TO, "--out", copy_of(demo_lenses))
    assert_one_line(outcome, 2, "is not empty: give a directory that is not there yet")


def test_a_damaged_file_is_a_failure(
    run_alens: Any, demo_lenses: Path, copy_of: Copy, tmp_path: Path
) -> None:
    lenses = copy_of(demo_lenses)
    (lenses / "output.safetensors").write_bytes(b"")
    outcome = run_alens("publish", lenses, *TO, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "output.safetensors was altered" in outcome.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_fits_and_exports_are_written_to_directories(
    run_alens: Any, demo_cache: Path, demo_lenses: Path
) -> None:
    says = "hf://me/x is on the hub: write to a directory, then `alens publish` it"
    assert_one_line(run_alens("fit", demo_cache, "hf://me/x", "--eval-rows", "1024"), 2, says)
    assert says in run_alens("export", demo_lenses, "hf://me/x").stderr


def test_places_in_figures_stop_an_upload(hub_of_the_test: Hub, demo_lenses: Path, tmp_path: Path) -> None:
    figure = tmp_path / "heads.html"
    figure.write_text("made in /home/ada/figures")
    words = ["publish", demo_lenses, *TO, "--upload", "--figures", figure]
    no_token, stopped, kept = hub_of_the_test.run(tmp_path / "home", words, token=None) + hub_of_the_test.run(
        tmp_path / "home", words, [*words, "--keep-paths"]
    )
    assert "this machine has no token for the hub: run `hf auth login`, or set HF_TOKEN" in no_token.stderr
    assert "figures name places of this machine (figures/heads.html: /home/ada/figures)" in stopped.stderr
    assert (no_token.code, stopped.code, kept.code) == (2, 2, 0)
    assert len(hub_of_the_test.repositories["me/lenses"].messages) == 2
