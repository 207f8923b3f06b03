"""The commands of docs/exchange.md, run on the demo beside publications that are made here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from . import pages

PAGE = pages.ROOT / "docs" / "exchange.md"


def publish(folder: Path) -> None:
    """The two directories that the page imports from."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for head in range(6):
        state[f"attn_lens.linears.{head}.weight"] = torch.randn(4096, 192, generator=random)
        state[f"attn_lens.linears.{head}.bias"] = torch.zeros(4096)
    (folder / "published").mkdir()
    torch.save({"state_dict": state}, folder / "published" / "attnlens-layer-2-epoch=00-step=2795.ckpt")
    (folder / "tuned-lens").mkdir()
    said = {"base_model_name_or_path": "demo", "d_model": 192, "num_hidden_layers": 4}
    (folder / "tuned-lens" / "config.json").write_text(json.dumps(said))
    zeros = {f"{i}.weight": torch.zeros(192, 192) for i in range(4)}
    torch.save(
        {**zeros, **{f"{i}.bias": torch.zeros(192) for i in range(4)}}, folder / "tuned-lens" / "params.pt"
    )


@pytest.mark.slow
def test_the_commands_run(tmp_path: Path, run_alens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    publish(tmp_path)
    for arguments in pages.alens_commands(PAGE):
        outcome = run_alens(*arguments)
        assert outcome.code == 0, (arguments, outcome.stderr)
    for fence in pages.fences(PAGE):
        if fence.language == "python":
            names: dict[str, Any] = {}
            exec(fence.text, names)
            assert names["weight"].shape == (192, 4096)
    assert not list(tmp_path.glob(".*.partial"))
