"""The tutorials: their commands run in a folder like that of the demo, on small caches and lenses."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alens import FitRequest, fit_lenses
from alens.cli.eval_table import BASELINES
from alens.fit.settings import FitSettings

from ..conftest import Run
from ..fake_hub import Hub
from . import pages

TUTORIALS = pages.ROOT / "docs" / "tutorials"


@dataclass(frozen=True, kw_only=True)
class Tutorial:
    """A page whose commands do not need each other, and what becomes of them in the tests."""

    commands: int
    says: str = ""
    """What each command prints."""
    words: dict[str, str] = field(default_factory=dict)
    """Words that are others here: the lenses of the tests are of heads 1 and 4 of layers 0 and 3."""
    more: tuple[str, ...] = ()
    """Options given last, so that they beat the page's own sizes."""


PAGES = {
    "basis": Tutorial(
        commands=2,
        says="By layer",
        words={"1,3": "1,4"},
        more=("--seed", "0", "--rows", "64", "--directions", "4", "--sequences", "2", "--device", "cpu"),
    ),
    "compare": Tutorial(commands=2, more=("--resamples", "19", "--layer", "0", "--device", "cpu")),
    "inject": Tutorial(
        commands=3,
        says="nats a token more",
        words={"-4,-2,0,2,4": "0,4", "0-5": "0-1"},
        more=("--text-tokens", "300"),
    ),
    "locate": Tutorial(commands=2),
    "read": Tutorial(commands=7, words={"2": "3", "0": "1"}),
    "transfer": Tutorial(
        commands=4,
        says="mean output (no lens): KL",
        words={"0-2": "1,4"},
        more=("--rows", "64", "--device", "cpu"),
    ),
}


def commands_of(page: str) -> list[list[str]]:
    return list(pages.alens_commands(TUTORIALS / f"{page}.md"))


ALONE = [(page, words) for page in PAGES for words in commands_of(page)]


@pytest.fixture(scope="session")
def copy_lenses(rotated_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lenses of the demo with another basis in each head, fitted for a few steps."""
    lenses = tmp_path_factory.mktemp("copy") / "lenses"
    settings = FitSettings(layers=(0, 3), heads=(1, 4), steps=3, batch_rows=128, eval_rows=1024)
    fit_lenses(FitRequest(store=rotated_cache, lenses=lenses, settings=settings, device="cpu"))
    return lenses


@pytest.fixture
def here(
    tmp_path: Path, demo_cache: Path, demo_lenses: Path, rotated_cache: Path, copy_lenses: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:  # fmt: skip
    """The working directory: `.demo` and `docs` as a reader has them after `make demo`."""
    (tmp_path / ".demo" / "transfer").mkdir(parents=True)
    for name, place in (
        ("docs", pages.ROOT / "docs"),
        (".demo/cache", demo_cache),
        (".demo/lenses", demo_lenses),
        (".demo/transfer/copy-cache", rotated_cache),
        (".demo/transfer/copy-lenses", copy_lenses),
    ):
        (tmp_path / name).symlink_to(place)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_named(words: list[str]) -> set[str]:
    return {word for word in words if word.endswith((".png", ".html", ".safetensors"))}


def test_each_page_has_its_commands() -> None:
    for page, tutorial in PAGES.items():
        assert [words[:2] for words in commands_of(page)] == [[page, ".demo/lenses"]] * tutorial.commands
    assert sum("--ablate" in words for words in commands_of("inject")) == 1
    assert [words[2] for words in commands_of("transfer")] == [".demo/cache"] * 4
    assert [words[2] for words in commands_of("basis")] == [".demo/cache"] * 2


@pytest.mark.parametrize(
    ("page", "words"), ALONE, ids=[f"{page}-{' '.join(words[3:5])}" for page, words in ALONE]
)
def test_a_command_runs_and_writes_its_files(here: Path, page: str, words: list[str], run_alens: Run) -> None:
    tutorial = PAGES[page]
    code, out, err = run_alens(*(tutorial.words.get(word, word) for word in words), *tutorial.more)
    assert code == 0, err
    assert tutorial.says in out
    assert {path.name for path in here.iterdir()} == {".demo", "docs"} | files_named(words)
    assert all((here / name).stat().st_size > 1000 for name in files_named(words))
    if page == "compare":
        assert ("lenses, contrast" in out) == ("--paired" in words)
        assert max(map(len, out.splitlines())) <= 80
    if page == "read":
        assert out or (here / "reading.html").stat().st_size > 10_000


def test_the_python_of_a_basis_runs(here: Path, run_alens: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = [words for words in commands_of("basis") if "--save" in words]
    assert run_alens(*words, *PAGES["basis"].more).code == 0
    page = TUTORIALS / "basis.md"
    (code,) = [fence.text for fence in pages.fences(page) if fence.language == "python"]
    exec(compile(code, str(page), "exec"), {})
    assert "tensor([" in capsys.readouterr().out


def test_the_commands_on_evaluating_run_in_order(here: Path, run_alens: Run) -> None:
    smaller = {
        "cache": ["--layers", "1,2", "--seq-len", "32", "--max-rows", "2048", "--rows-per-shard", "512"],
        "fit": ["--steps", "3", "--batch-rows", "128", "--eval-rows", "496"],
        "eval": ["--rows", "200"],
    }
    commands = commands_of("evaluate")
    assert [words[0] for words in commands] == ["eval", "eval", "cache", "fit", "fit", "eval"]
    for words in commands:
        outcome = run_alens(*words, *smaller[words[0]], "--device", "cpu")
        assert outcome.code == 0, (words, outcome.stderr)
    body = json.loads(outcome.stdout)
    asked_for = {"written", "regression", "effect", "jacobian", "random"}
    assert set(body["summary"]["wins"]) == set(BASELINES) - asked_for and body["norm_is_the_models"]
    assert (here / "gains.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_commands_on_publishing_run_in_order(
    here: Path, hub: Hub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In one process that uses a small hub on this machine."""
    commands = commands_of("publish")
    for words, outcome in zip(commands, hub.run(tmp_path_factory.mktemp("home"), *commands), strict=True):
        assert outcome.code == 0, (words, outcome.stderr)
    assert set(hub.repositories) == {"me/demo-lenses"}
    assert "cache/MANIFEST.json" in hub.repositories["me/demo-lenses"].files
