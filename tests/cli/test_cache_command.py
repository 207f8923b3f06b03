"""`alens cache` when all is well: what it says, and how options reach the plan, from flags and from a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from alens.store.cache_reader import open_cache

from ..outcomes import assert_one_line

Options = list[str]


def test_it_says_what_it_wrote_and_that_running_again_wrote_nothing(
    run_alens: Any, tmp_path: Path, small_options: Options
) -> None:
    code, out, err = run_alens("cache", "demo", "demo", tmp_path / "store", *small_options)
    assert code == 0, err
    assert out.startswith("wrote 4 shards (512 rows, ")
    assert "sealed: 4 shards, 512 rows\n" in out
    code, out, err = run_alens("cache", "demo", "demo", tmp_path / "store", *small_options)
    assert (code, err) == (0, "")
    assert out == f"wrote 0 shards (0 rows) to {tmp_path}/store\nsealed: 4 shards, 512 rows\n"


def test_a_worker_says_how_much_is_missing(run_alens: Any, tmp_path: Path, small_options: Options) -> None:
    code, out, _ = run_alens("cache", "demo", "demo", tmp_path / "store", *small_options, "--worker", "1/4")
    assert code == 0
    assert "not sealed yet: 1 of 4 shards are committed\n" in out


def test_it_says_what_was_left_out(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some words of text\n" * 60)
    options = ["--seq-len", "16", "--rows-per-shard", "128", "--layers", "0"]
    code, out, _ = run_alens("cache", "demo", tmp_path / "text.txt", tmp_path / "store", *options)
    left_out = open_cache(tmp_path / "store").plan.tokens.sequences_left_out
    assert (code, left_out > 0) == (0, True)
    assert f"left out: the last {left_out} sequences of the text, which do not fill a shard\n" in out


def test_one_line_says_which_files_of_a_directory_were_left_out(run_alens: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("emma.txt", "night train.txt", "a.zip", "b.zip", "README.txt"):
        (corpus / name).write_text(f"some words of {name}\n" * 100)
    options = ["--seq-len", "16", "--rows-per-shard", "64", "--layers", "0"]
    code, _, err = run_alens("cache", "demo", corpus, tmp_path / "store", *options)
    assert code == 0
    assert [line for line in err.splitlines() if "left out" in line] == [
        f"left out of {corpus}: 2 .zip, 1 README.txt"
    ]
    files = open_cache(tmp_path / "store").plan.corpus.files
    assert [file.name for file in files] == ["emma.txt", "night train.txt"]


def test_every_option_reaches_the_plan(run_alens: Any, tmp_path: Path, small_options: Options) -> None:
    options = ["--exact-teacher", "--seed", "7", "--dtype", "bfloat16", "--document-column", "document"]
    assert run_alens("cache", "demo", "demo", tmp_path / "store", *small_options, *options).code == 0
    plan = open_cache(tmp_path / "store").plan
    settings = plan.settings
    assert (settings.seq_len, settings.rows_per_shard, settings.max_rows, settings.batch_size) == (
        32,
        128,
        512,
        2,
    )
    assert (settings.top_k, settings.tail_samples, settings.layers) == (4, 4, (0, 2, 3))
    assert (settings.exact_teacher, settings.seed, settings.dtype) == (True, 7, "bfloat16")
    assert (plan.corpus.document_column, plan.corpus.row_documents) == ("document", False)


# --config


def test_a_file_of_settings_and_a_flag_that_beats_it(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        "seq_len = 16\nrows-per-shard = 128\nmax_rows = 256\ntop_k = 3\nexact_teacher = true\nlayers = [1]\n",
        encoding="utf-8-sig",  # with a byte order mark, as some editors write it
    )
    arguments = ["--config", tmp_path / "run.toml", "--top-k", "5", "--device", "cpu"]
    assert run_alens("cache", "demo", "demo", tmp_path / "store", *arguments).code == 0
    settings = open_cache(tmp_path / "store").plan.settings
    assert (settings.seq_len, settings.rows_per_shard, settings.layers) == (16, 128, (1,))
    assert (settings.exact_teacher, settings.top_k) == (True, 5)


def test_arguments_may_stand_in_the_file_too(run_alens: Any, tmp_path: Path) -> None:
    values = {"model": "demo", "corpus": "demo", "store": str(tmp_path / "store"), "seq_len": 16, "rows_per_shard": 64, "max_rows": 64}  # fmt: skip
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    (tmp_path / "run.toml").write_text(text)
    assert run_alens("cache", "--config", tmp_path / "run.toml").code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "seqlen = 3",
            "has the unknown key 'seqlen': valid keys are batch-size, bos, corpus, corpus-config, corpus-revision, device",
        ),
        ("[cache]\nseq_len = 3", "has the unknown key 'cache': valid keys are"),
        ("seq_len =", "is not a TOML file"),
        ("seq_len = 'long'", "'long' is not a valid integer"),
        ("layers = 'all'", "'all' is not a list of numbers"),
        ("layers = ['a']", "is not a list of numbers"),
    ],
)
def test_a_file_of_settings_that_is_wrong(run_alens: Any, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", "--config", tmp_path / "run.toml")
    assert_one_line(outcome, 2, says)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("top-k = 2.5", "gives top-k the value 2.5: it must be a whole number"),
        ("seed = true", "gives seed the value True: it must be a whole number"),
        ('exact-teacher = "yes"', "gives exact-teacher the value 'yes': it must be true or false"),
        ("exact-teacher = 1", "gives exact-teacher the value 1: it must be true or false"),
    ],
)
def test_a_value_of_another_type_is_refused(run_alens: Any, tmp_path: Path, line: str, expected: str) -> None:
    """The command line would make 2 of 2.5, and true of "yes"."""
    (tmp_path / "run.toml").write_text(line + "\n")
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", "--config", tmp_path / "run.toml")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr == f"alens: {tmp_path / 'run.toml'} {expected}\n"
