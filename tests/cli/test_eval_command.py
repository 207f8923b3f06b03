"""`alens eval`: the figures of each head, and how it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import evaluate, load_lenses, open_cache

Copy = Callable[[Path], Path]


def refusal(outcome: Any, code: int) -> str:
    """The one line of a run that ended with `code`."""
    assert outcome.code == code, outcome
    assert outcome.stdout == "" and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("alens: ")
    return str(outcome.stderr).removeprefix("alens: ")


def test_json_is_what_the_library_finds(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    code, out, err = run_alens("eval", demo_lenses, demo_cache, "--json", "--layers", "3", "--rows", "200")
    assert code == 0, err
    expected = evaluate(load_lenses(demo_lenses), open_cache(demo_cache), layers=[3], num_rows=200)
    assert json.loads(out) == expected.to_json()


def test_the_table_has_a_line_a_head_with_its_figures(
    run_alens: Any, demo_lenses: Path, demo_cache: Path
) -> None:
    code, out, _ = run_alens("eval", demo_lenses, demo_cache)
    assert code == 0
    found = evaluate(load_lenses(demo_lenses), open_cache(demo_cache))
    assert "1,008 held-out rows, exact teacher" in out
    for layer in (0, 3):
        for index, head in enumerate((1, 4)):
            (line,) = [line for line in out.splitlines() if f" {layer}.{head} " in line]
            assert f"{found.lens[layer][index].kl:.3f}" in line
            assert f"{found.unembedding[layer][index].kl:.3f}" in line
    assert f"mean output (no lens): KL {found.mean_output.kl:.3f}" in out


def test_no_column_is_cut_in_a_log(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    assert "…" not in run_alens("eval", demo_lenses, demo_cache, env={"COLUMNS": "80"}).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "1"), "has no lens for layer 1: it has layers 0, 3"),
        (("--layers", "3-1"), "'3-1' is not a list of numbers"),
        (("--rows", "0"), "0 is not in the range x>=1"),
        (("--device", "tpu"), "device 'tpu' is unknown: take auto, cpu, cuda or cuda:N"),
        (("--device", "meta"), "device 'meta' is unknown: take auto, cpu, cuda or cuda:N"),
        (("--device", "cuda:99"), "device cuda:99 is not there"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(run_alens("eval", demo_lenses, demo_cache, *arguments), 2)


def test_lenses_that_are_none_are_refused(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    line = refusal(run_alens("eval", tmp_path, demo_cache), 2)
    assert "holds no lenses (it has no lens.json)" in line


def test_a_store_that_is_none_is_refused(run_alens: Any, demo_lenses: Path, tmp_path: Path) -> None:
    assert "is no cache" in refusal(run_alens("eval", demo_lenses, tmp_path), 2)


def test_lenses_of_another_model_are_refused(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy
) -> None:
    lenses = copy_of(demo_lenses)
    body = json.loads((lenses / "lens.json").read_text())
    body["model"]["weights_sha256"] = "0" * 64
    (lenses / "lens.json").write_text(json.dumps(body))
    assert "has other weights" in refusal(run_alens("eval", lenses, demo_cache), 2)


def test_a_damaged_lens_file_is_named(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy
) -> None:
    lenses = copy_of(demo_lenses)
    file = lenses / "layer-03.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert "layer-03.safetensors was altered" in refusal(run_alens("eval", lenses, demo_cache), 1)


def test_a_damaged_shard_is_named(run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    file = store / "arrays.zarr/sites/attn.z/03/c.5.0.0"
    blob = bytearray(file.read_bytes())
    blob[999] ^= 1
    file.write_bytes(blob)
    line = refusal(run_alens("eval", demo_lenses, store), 1)
    assert "c.5.0.0" in line and "shard 5" in line
