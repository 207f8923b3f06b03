"""`alens fit`: what it writes, what it says, and how it refuses."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import demo, load_lenses

from ..damage import flip
from ..folders import contents
from ..judged import mean_output_kl, of_heads
from ..outcomes import refusal

Copy = Callable[[Path], Path]
SMALL = ("--layers", "3", "--heads", "1", "--steps", "4", "--batch-rows", "64", "--eval-rows", "500")


def test_it_writes_lenses_and_says_how_good_they_are(
    run_alens: Any, demo_cache: Path, tmp_path: Path
) -> None:
    code, out, err = run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL)
    assert code == 0, err
    assert "took 4 steps of 64 rows" in out
    kl = load_lenses(tmp_path / "lenses").record.held_out["3"][0]["kl"]
    assert f"1 lens in {tmp_path / 'lenses'}: held-out KL mean {kl:.4f}, worst {kl:.4f} nats" in out


def test_lenses_of_the_demo_beat_the_mean_output_and_the_unembedding(
    run_alens: Any, demo_cache: Path, tmp_path: Path
) -> None:
    sizes = ("--batch-rows", 512, "--eval-rows", 1024, "--layers", "3")
    code, _, err = run_alens("fit", demo_cache, tmp_path / "lenses", *sizes)
    assert code == 0 and "they say nothing" not in err
    assert not any(load_lenses(tmp_path / "lenses").record.says_nothing(3, head) for head in range(6))
    document = run_alens("eval", tmp_path / "lenses", demo_cache, "--json").stdout
    heads, plain = of_heads(document), of_heads(document, "unembedding")
    assert len(heads) == 6
    for head, unembedding in zip(heads, plain, strict=True):
        assert head["kl"] < mean_output_kl(document)
        assert head["kl"] < unembedding["kl"]


@pytest.mark.parametrize("objective", ["forward-kl", "last-position"])
def test_lenses_above_the_mean_output_become_the_mean_output_and_are_told_of(
    run_alens: Any, demo_cache: Path, tmp_path: Path, objective: str
) -> None:
    """Two steps at a huge rate, from a start that is not better."""
    lenses, start = tmp_path / "lenses", ("--start", "mean-output")
    sizes = ("--layers", 0, "--heads", "0,5", "--batch-rows", 16, "--eval-rows", 512, "--steps", 2, "--lr", 3)
    code, out, err = run_alens("fit", demo_cache, lenses, *sizes, *start, "--objective", objective)
    assert code == 0, err
    record = load_lenses(lenses).record
    assert all(record.says_nothing(0, head) for head in (0, 5))
    (line,) = [line for line in err.splitlines() if "say nothing" in line]
    assert f"{lenses}: 2 of 2 lenses say nothing" in line and f"{record.mean_output_kl:.3f} nats" in line
    assert "(0.0, best at step 2; 0.5, best at step 2); the mean output stands in their place" in line
    assert "A lower --lr than 3, or more rows, may do better" in line and "longer" not in line
    assert f"(mean output {record.mean_output_kl:.4f}); 0 had converged; 2 say nothing" in out
    assert "epochs" not in out
    document = run_alens("eval", lenses, demo_cache, "--rows", 512, "--json").stdout
    for head in of_heads(document):
        assert head["kl"] == pytest.approx(mean_output_kl(document), rel=1e-5)


def test_it_says_how_many_rows_a_lens_would_gain_from(
    run_alens: Any, demo_cache: Path, tmp_path: Path
) -> None:
    """From the mean output, few steps leave much to gain."""
    sizes = (
        "--layers",
        3,
        "--heads",
        "0,5",
        "--batch-rows",
        16,
        "--eval-rows",
        512,
        "--steps",
        128,
        "--lr",
        0.003,
    )
    code, out, err = run_alens("fit", demo_cache, tmp_path / "lenses", *sizes, "--start", "mean-output")
    assert code == 0, err
    wanted = load_lenses(tmp_path / "lenses").record.fit["rows_wanted"]
    assert set(wanted) == {"3.0", "3.5"} and all(rows % 2048 == 0 and rows > 2048 for rows in wanted.values())
    assert "2 of 2 would gain from more rows or --epochs: about " in out and "for 3.0" in out


def test_again_on_finished_lenses_it_says_so_and_changes_nothing(
    run_alens: Any, demo_cache: Path, tmp_path: Path
) -> None:
    run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL)
    before = contents(tmp_path / "lenses")
    code, out, err = run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL)
    assert code == 0
    assert "is finished: nothing to do" in err
    assert "took" not in out
    assert contents(tmp_path / "lenses") == before


def test_the_time_limit_ends_it_with_75_and_a_checkpoint_to_go_on_from(
    run_alens: Any, demo_cache: Path, tmp_path: Path
) -> None:
    lenses = tmp_path / "lenses"
    # No lens may stop by itself, however quick the machine is.
    steps = (
        "--layers",
        "0",
        "--steps",
        "1000000",
        "--tolerance",
        "0",
        "--batch-rows",
        "64",
        "--eval-rows",
        "500",
    )
    for _ in range(2):
        line = refusal(
            run_alens("fit", demo_cache, lenses, *steps, "--max-minutes", "0.03"), 75, after_log=True
        )
        assert line.startswith("stopped after step ") and line.endswith("run again to go on")
    assert not (lenses / "lens.json").exists()


def test_a_config_file_gives_the_options_and_a_flag_beats_it(
    run_alens: Any, demo_cache: Path, tmp_path: Path
) -> None:
    config = tmp_path / "fit.toml"
    config.write_text('layers = [3]\nheads = "1"\nsteps = 9\nbatch-rows = 64\neval_rows = 500\n')
    code, _, err = run_alens("fit", demo_cache, tmp_path / "lenses", "--config", config, "--steps", 2)
    assert code == 0, err
    fit = load_lenses(tmp_path / "lenses").record.fit
    assert (fit["layers"], fit["heads"], fit["steps"], fit["batch_rows"]) == ([3], [1], 2, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "7"), "layer 7 is not in"),
        (("--heads", "6"), "head 6 does not exist: demo has heads 0 to 5"),
        (("--layers", "x"), "'x' is not a list of numbers"),
        (("--layers", "3-1"), "'3-1' is not a list of numbers"),
        (("--eval-rows", "6000"), "nothing is left to train on"),
        (("--eval-rows", "0"), "eval_rows is 0: it must be at least 1"),
        (("--device", "tpu"), "device 'tpu' is unknown"),
        (("--lens", "cubic"), "lens is 'cubic': it must be one of linear"),
        (("--objective", "l2"), "objective is 'l2': it must be one of forward-kl"),
        (("--teacher", "oracle"), "'oracle' is not one of 'compressed', 'exact'"),
        (("--zero", "4"), "4 is not in the range 0<=x<=3"),
        (("--lr", "0"), "lr is 0.0: it must be a number above 0"),
        (("--epochs", "inf", "--steps", "1"), "epochs is inf"),
        (("--seed", "-1"), "seed is -1"),
        (("--min-position", "64"), "min_position is 64"),
        (("--batch-rows", "0"), "batch_rows is 0"),
        (("--checkpoint-every", "0"), "0 is not in the range x>=1"),
        (("--colour", "red"), "No such option"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line_and_nothing_is_written(
    run_alens: Any, demo_cache: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL, *arguments)
    assert message in refusal(outcome, 2)
    assert not (tmp_path / "lenses").exists()


def test_other_settings_on_begun_lenses_are_named(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL, "--lr", "0.01")
    before = contents(tmp_path / "lenses")
    line = refusal(run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL, "--lr", "0.5"), 2)
    assert "holds another fit: lr is 0.5 (begun: 0.01)" in line
    assert contents(tmp_path / "lenses") == before


def test_lenses_begun_on_another_cache_are_refused(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    small = ("--seq-len", 32, "--rows-per-shard", 512, "--max-rows", 1024, "--top-k", 4, "--tail-samples", 4)
    assert run_alens("cache", "demo", "demo", tmp_path / "other", *small).code == 0
    run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL)
    line = refusal(run_alens("fit", tmp_path / "other", tmp_path / "lenses", *SMALL), 2)
    assert "begun on another cache than" in line


def test_the_exact_teacher_must_have_been_cached(run_alens: Any, tmp_path: Path) -> None:
    small = ("--seq-len", 32, "--rows-per-shard", 512, "--max-rows", 1024, "--top-k", 4, "--tail-samples", 4)
    assert run_alens("cache", "demo", "demo", tmp_path / "c", *small).code == 0
    outcome = run_alens("fit", tmp_path / "c", tmp_path / "lenses", *SMALL, "--teacher", "exact")
    assert "holds no exact teacher: cache with --exact-teacher" in refusal(outcome, 2)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None], ids=["folder", "file", "none"])
def test_a_store_that_is_none_is_refused(
    run_alens: Any, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "store")
    line = refusal(run_alens("fit", tmp_path / "store", tmp_path / "lenses", *SMALL), 2)
    assert "is not a cache (it has no plan.json)" in line


def test_a_store_without_a_committed_shard_is_refused(
    run_alens: Any, demo_cache: Path, copy_of: Copy, tmp_path: Path
) -> None:
    store = copy_of(demo_cache)
    for path in [store / "MANIFEST.json", *(store / "commits").glob("0*.json")]:
        path.unlink()
    line = refusal(run_alens("fit", store, tmp_path / "lenses", *SMALL), after_log=True)
    assert "has 0 committed shards" in line and "nothing is left to train on" in line


def test_lenses_that_are_a_file_are_refused(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "lenses").write_text("mine")
    line = refusal(run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL), 2)
    assert "is not a directory" in line
    assert (tmp_path / "lenses").read_text() == "mine"


def test_a_directory_with_other_things_is_refused_and_left_alone(
    run_alens: Any, demo_cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "neither empty nor a fit" in refusal(run_alens("fit", demo_cache, tmp_path, *SMALL), 2)
    assert list(contents(tmp_path)) == ["notes.txt"]


def test_a_half_set_launcher_environment_is_refused(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    outcome = run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL, env={"RANK": "0", "WORLD_SIZE": "1"})
    line = refusal(outcome, 2)
    assert "the environment has RANK but not LOCAL_RANK, MASTER_ADDR, MASTER_PORT" in line


def test_a_cut_fit_json_is_damage(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL)
    plan = tmp_path / "lenses" / "fit.json"
    plan.write_text(plan.read_text()[:50])
    line = refusal(run_alens("fit", demo_cache, tmp_path / "lenses", *SMALL), 1)
    assert "fit.json is not whole" in line


def test_a_flipped_byte_in_a_shard_is_damage_and_named(
    run_alens: Any, demo_cache: Path, copy_of: Copy, tmp_path: Path
) -> None:
    store = copy_of(demo_cache)
    flip(store / "arrays.zarr/sites/attn.z/03/c.2.0.0")
    outcome = run_alens("fit", store, tmp_path / "lenses", *SMALL, "--steps", "80")
    line = refusal(outcome, 1)
    assert "c.2.0.0" in line and "shard 2" in line
    assert not (tmp_path / "lenses" / "lens.json").exists()


WITHOUT_MODEL = """
import sys
from alens.cli import run

store, lenses = sys.argv[1:]
sizes = "--layers 1 --steps 2 --batch-rows 64 --eval-rows 256 --teacher exact".split()
assert run(["fit", store, lenses, *sizes]) == 0
assert run(["eval", lenses, store]) == 0
print("loaded:", *({"transformers", "transformer_lens", "tokenizers", "datasets"} & set(sys.modules)))
"""


def test_no_model_is_needed_or_loaded(run_alens: Any, copy_of: Copy, tmp_path: Path) -> None:
    model = copy_of(demo.MODEL)
    small = ("--seq-len", 32, "--rows-per-shard", 512, "--max-rows", 1024, "--exact-teacher", "--top-k", 8)
    assert run_alens("cache", model, "demo", tmp_path / "store", *small).code == 0
    shutil.move(model, tmp_path / "out-of-reach")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODEL, tmp_path / "store", tmp_path / "lenses"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
