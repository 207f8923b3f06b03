"""docs/sweep.md: its configuration is docs/sweep.toml, and its commands run, one after the other."""

from pathlib import Path
from typing import Any

import pytest

from . import pages

PAGE = pages.ROOT / "docs" / "sweep.md"
CONFIG = pages.ROOT / "docs" / "sweep.toml"


def test_the_configuration_on_the_page_is_the_file() -> None:
    [shown] = [fence.text for fence in pages.fences(PAGE) if fence.language == "toml"]
    assert shown == CONFIG.read_text()


@pytest.mark.slow
def test_the_commands_run(run_alens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "sweep.toml").write_text(CONFIG.read_text())
    monkeypatch.chdir(tmp_path)
    for arguments in pages.alens_commands(PAGE):
        code, _, err = run_alens(*arguments)
        assert code == 0, err
    table = (tmp_path / "ablations" / "table.md").read_text()
    assert table.count("\n| ") == 6 and "Difference to lr=0.03,tail_samples=16, paired." in table
