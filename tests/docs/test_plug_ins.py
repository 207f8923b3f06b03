"""The page on plug-ins: its examples are saved as it says, and its commands run on the demo."""

from pathlib import Path

import pytest

from alens import load_lenses

from . import pages

PAGE = pages.ROOT / "docs" / "plug-ins.md"
QUICK = ["--steps", "4", "--batch-rows", "256", "--eval-rows", "512", "--device", "cpu"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the examples of the page."""
    examples = [fence.text for fence in pages.fences(PAGE) if fence.language == "python"]
    for name, text in zip(("my_lens.py", "my_objective.py"), examples, strict=True):
        (tmp_path / name).write_text(text)
        assert f"`{name}`" in pages.prose(PAGE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_its_commands_run(here: Path, demo_cache: Path, run_alens_process) -> None:
    commands = list(pages.alens_commands(PAGE))
    assert len(commands) == 2
    for arguments in commands:
        outcome = run_alens_process(
            *(demo_cache if word == "gpt2-cache" else word for word in arguments), *QUICK
        )
        assert outcome.code == 0, outcome.stderr
    shared = load_lenses(here / "shared")
    assert (shared.record.design, shared.record.fit["lens_options"]) == (
        "my_lens:SharedBias",
        {"start": "mean"},
    )
    assert load_lenses(here / "own-token").record.objective == "my_objective:OwnToken"
    # The lenses are ordinary ones: the modules of their design and objective are not needed any more.
    for name in ("my_lens.py", "my_objective.py"):
        (here / name).unlink()
    judged = run_alens_process("eval", "shared", demo_cache)
    assert judged.code == 0, judged.stderr
