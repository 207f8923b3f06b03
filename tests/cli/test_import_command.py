"""`alens import`: what comes back from an export, and how it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from .. import documents
from ..malicious import Malicious
from ..outcomes import assert_one_line


def test_an_export_comes_back_and_info_says_what_it_is(
    run_alens: Any, demo_lenses: Path, tmp_path: Path
) -> None:
    assert run_alens("export", demo_lenses, tmp_path / "out", "--form", "z").code == 0
    outcome = run_alens("import", tmp_path / "out", tmp_path / "back", "--model", "demo", "--layer", "3")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == f"{tmp_path / 'back'}: alens lenses of attn.z, layers 3\n"
    body = json.loads(run_alens("info", tmp_path / "back", "--json").stdout)
    assert (body["design"], body["layers"], body["steps"]) == ("imported", "3", "unknown")
    before = json.loads(run_alens("info", demo_lenses, "--json").stdout)
    assert body["held_out"] == before["held_out"][2:]  # of layer 3
    assert body["mean_output_kl"] == before["mean_output_kl"]


@pytest.mark.parametrize("held_out", [3, {"3": [{}, {}]}, {"3": [{"kl": "x"}]}])
def test_an_export_with_figures_that_are_none_is_one_line(
    run_alens: Any, demo_lenses: Path, tmp_path: Path, held_out: Any
) -> None:
    assert run_alens("export", demo_lenses, tmp_path / "out", "--form", "z").code == 0
    documents.edit(tmp_path / "out" / "config.json", lambda body: body.update(held_out=held_out))
    outcome = run_alens("import", tmp_path / "out", tmp_path / "back", "--model", "demo")
    assert outcome.code == 1 and "Traceback" not in outcome.stderr
    line = outcome.stderr.splitlines()[-1]
    assert line.startswith("alens: ") and "is not whole" in line and line.endswith("fetch it again")
    assert not (tmp_path / "back").exists()


def test_a_malicious_checkpoint_is_one_line_and_runs_nothing(run_alens: Any, tmp_path: Path) -> None:
    source = tmp_path / "attnlens-layer-0.ckpt"
    torch.save({"state_dict": Malicious(tmp_path / "ran")}, source)
    outcome = run_alens("import", source, tmp_path / "back", "--model", "demo")
    assert_one_line(outcome, 2, str(source), "holds more than weights", "is never run")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "back", "--model", "demo"), "nowhere does not exist"),
        ((".", "back", "--model", "demo"), "is nothing that alens imports"),
        (("empty.ckpt", "back"), "Missing option '--model'"),
        (("empty.ckpt", "back", "--model", "/no/model"), "/no/model does not exist"),
        (("empty.ckpt", ".", "--model", "demo"), "is not empty"),
    ],
)
def test_a_wrong_request_is_one_line(
    run_alens: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if message != "is nothing that alens imports":
        (tmp_path / "empty.ckpt").touch()
    assert_one_line(run_alens("import", *arguments), 2, message)
    assert not (tmp_path / "back").exists()
