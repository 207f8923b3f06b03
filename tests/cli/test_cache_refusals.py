"""What `alens cache` refuses or fails at: an exit code, one line for each, and nothing lost."""

import contextlib
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alens import demo

from ..damage import flip
from ..folders import array_hashes, states
from ..outcomes import assert_one_line

Copy = Callable[[Path], Path]
Options = list[str]


# Mistakes: exit code 2, one line, nothing written


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--layers", "4"], "layer 4 does not exist: demo has layers 0 to 3"),
        (["--layers", "3-1"], "is not a list of numbers such as"),
        (["--layers", "two"], "'two' is not a list of numbers such as 0,2,5-7"),
        (["--top-k", "4097"], "top_k is 4097: demo has 4096 tokens in its vocabulary"),
        (["--seq-len", "512", "--rows-per-shard", "512"], "seq_len is 512: demo sees 256 tokens at most"),
        (["--rows-per-shard", "100"], "rows_per_shard is 100, not a multiple of seq_len 32: take 96"),
        (["--max-rows", "100"], "max_rows is 100: fewer than one shard of 128 rows"),
        (["--tail-samples", "0"], "tail_samples is 0: it must be at least 1"),
        (["--worker", "3/3"], "worker 3/3 does not exist: workers of 3 are 0/3 to 2/3"),
        (["--worker", "one"], "worker 'one' is not of the form I/N, for example 0/8"),
        (["--device", "abacus"], "device 'abacus' is unknown: take auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:77"], "device cuda:77 is not there"),
        (["--dtype", "int8"], "'int8' is not one of 'float32', 'bfloat16', 'float16'"),
        (["--text-column", "body"], "corpus.parquet has no column 'body': it has text, document; choose with --text-column"),
        (["--document-column", "book"], "corpus.parquet has no column 'book': it has text, document"),
        (["--document-column", "document", "--row-documents"], "exclude each other"),
        (["--seq-len", "many"], "'many' is not a valid integer"),
        (["--keep-bits", "10"], "keep_bits is 10: float16 has 10 mantissa bits, keep 0 to 9 of them"),
        (["--keep-bits", "-1"], "keep_bits is -1: float16 has 10 mantissa bits, keep 0 to 9 of them"),
        (["--keep-bits", "some"], "'some' is not a valid integer"),
        (["--keep-bits", "5", "--z-dtype", "int8"], "keep_bits rounds float16, and z_dtype is int8: choose one of the two"),
        (["--z-dtype", "int4"], "'int4' is not one of 'float16', 'int8'"),
        (["--sites", "resid_pre"], "sites is resid_pre: name resid_post or mlp_out, each once (attn.z is always cached)"),
        (["--sites", "mlp_out,attn.z"], "sites is mlp_out,attn.z: name resid_post or mlp_out, each once"),
        (["--sites", "mlp_out,mlp_out"], "sites is mlp_out,mlp_out: name resid_post or mlp_out, each once"),
        (["--sites", ""], "sites is empty: name resid_post or mlp_out, each once"),
        (["--config", "/no/such.toml"], "cannot read /no/such.toml: No such file or directory"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be(
    run_alens: Any,
    tmp_path: Path,
    arguments: list[str],
    says: str,
    small_options: Options,
) -> None:
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", *small_options, *arguments)
    assert_one_line(outcome, 2, says)
    assert not (tmp_path / "store/plan.json").exists()
    assert not (tmp_path / "store/tokens.npy").exists()


def broken_model(make: Callable[[Path], object]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        shutil.copytree(demo.MODEL, folder / "model")
        make(folder / "model")
        return folder / "model"

    return build


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda folder: folder / "nowhere", "/nowhere does not exist: give a Hugging Face directory"),
        (lambda folder: "no-such-model", "no-such-model is not a file or directory here"),
        (lambda folder: folder, "is not a model directory: it is an empty directory"),
        (lambda folder: demo.MODEL / "config.json", "config.json is not a model directory"),
        (broken_model(lambda m: (m / "model.safetensors").unlink()), "has no model.safetensors and no model.safetensors.index.json"),
        (broken_model(lambda m: (m / "tokenizer.json").unlink()), "has no tokenizer"),
        (broken_model(lambda m: (m / "config.json").write_text("{")), "config.json is not a model configuration"),
        (broken_model(lambda m: os.truncate(m / "model.safetensors", 10**6)), "is not a readable safetensors file"),
        (broken_model(lambda m: (m / "tokenizer.json").write_text("{")), "cannot load the tokenizer in"),
    ],
)  # fmt: skip
def test_what_is_no_model(
    run_alens: Any,
    tmp_path: Path,
    model: Callable[[Path], Any],
    says: str,
    small_options: Options,
) -> None:
    assert_one_line(run_alens("cache", model(tmp_path), "demo", tmp_path / "store", *small_options), 2, says)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "missing.txt does not exist: give a file, a directory, a hub dataset id, or `demo`"),
        ("table.csv", b"text\nx\n", "table.csv is not a .parquet, .arrow, .jsonl or .txt file"),
        ("empty.txt", b"", "has no text"),
        ("empty.jsonl", b"", "has no text"),
        ("blank.txt", b" \n\n \n", "has no text"),
        ("null.jsonl", b'{"text": null}\n', "has no text"),
        ("short.txt", b"three short words\n", "0 sequences of 32: fewer than one shard of 128 rows"),
        ("body.jsonl", b'{"body": "x", "id": 1}\n', "has no column 'text': it has body, id; choose with --text-column"),
        ("numbers.jsonl", b'{"text": 5}\n', "holds int, not text"),
        ("broken.jsonl", b'{"text": "a"}\n{broken\n', "cannot read text from"),
        ("broken.parquet", b"PAR1 and no more", "cannot read text from"),
        ("latin.txt", b"caf\xe9 au lait\n", "cannot read text from"),
    ],
)  # fmt: skip
def test_what_is_no_corpus(
    run_alens: Any,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    says: str,
    small_options: Options,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    outcome = run_alens("cache", "demo", tmp_path / name, tmp_path / "store", *small_options)
    assert_one_line(outcome, 2, says, name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_files_that_may_not_be_read(run_alens: Any, tmp_path: Path, small_options: Options) -> None:
    (tmp_path / "text.txt").write_text("words " * 1000)
    (tmp_path / "text.txt").chmod(0)
    outcome = run_alens("cache", "demo", tmp_path / "text.txt", tmp_path / "store", *small_options)
    assert_one_line(outcome, 2, "cannot read", "text.txt: Permission denied")


def test_a_store_that_is_a_file(run_alens: Any, tmp_path: Path, small_options: Options) -> None:
    (tmp_path / "store").write_text("mine")
    assert_one_line(
        run_alens("cache", "demo", "demo", tmp_path / "store", *small_options), 2, "store is not a directory"
    )
    assert (tmp_path / "store").read_text() == "mine"


def test_a_store_that_holds_other_things(run_alens: Any, tmp_path: Path, small_options: Options) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = states(tmp_path)
    outcome = run_alens("cache", "demo", "demo", tmp_path, *small_options)
    assert_one_line(outcome, 2, "is neither empty nor a cache (it holds notes.txt): name another directory")
    assert states(tmp_path) == before


@pytest.mark.parametrize(
    "option",
    [
        *(["--seed", "1"], ["--top-k", "5"], ["--layers", "0"], ["--text-column", "x"]),
        *(["--keep-bits", "5"], ["--z-dtype", "int8"], ["--sites", "mlp_out"]),
    ],
)
def test_a_store_of_another_plan(
    run_alens: Any,
    small: Path,
    copy_of: Copy,
    option: list[str],
    small_options: Options,
) -> None:
    store = copy_of(small)
    before = states(store)
    outcome = run_alens("cache", "demo", "demo", store, *small_options, *option)
    name = option[0][2:].replace("-", "_")
    assert_one_line(outcome, 2, f"{store} holds another plan: {name} is ", "(the cache: ")
    assert states(store) == before


# Failures: exit code 1, one line, nothing lost


def test_a_place_where_nothing_can_be_written(run_alens: Any, small_options: Options) -> None:
    assert_one_line(
        run_alens("cache", "demo", "demo", "/proc/alens-store", *small_options),
        1,
        "cannot write /proc/alens-store",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(run_alens: Any, tmp_path: Path, small_options: Options) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", *small_options)
    assert_one_line(outcome, 1, "cannot write", "Permission denied")


def test_no_space_for_the_next_shard(
    run_alens: Any,
    small: Path,
    copy_of: Copy,
    monkeypatch: pytest.MonkeyPatch,
    small_options: Options,
) -> None:
    store = copy_of(small)
    (store / "MANIFEST.json").unlink()
    (store / "commits/000002.json").unlink()
    before = states(store)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 5000))
        outcome = run_alens("cache", "demo", "demo", store, *small_options)
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[-1].startswith(f"alens: no space for the next shard in {store}: ")
    assert states(store) == before


@contextlib.contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """The operating system refuses larger files, as a full disk refuses all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses_in_the_middle_of_a_shard(
    run_alens: Any, small: Path, copy_of: Copy, small_options: Options
) -> None:
    store = copy_of(small)
    (store / "commits/000002.json").unlink()
    with files_of_at_most(20_000):  # z of a shard takes 49 kB
        outcome = run_alens("cache", "demo", "demo", store, *small_options)
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[-1].startswith("alens: cannot write ")
    assert "File too large; nothing that was committed is lost, mend it and run again" in outcome.stderr
    assert not list(store.rglob("*.partial"))
    assert run_alens("cache", "demo", "demo", store, *small_options).code == 0
    assert array_hashes(store) == array_hashes(small)


def test_a_disk_that_refuses_before_there_is_a_plan(
    run_alens: Any, small: Path, tmp_path: Path, small_options: Options
) -> None:
    with files_of_at_most(100_000):  # W_U takes 3 MB
        outcome = run_alens("cache", "demo", "demo", tmp_path / "store", *small_options)
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[-1].startswith("alens: cannot write ")
    assert "File too large" in outcome.stderr
    assert not (tmp_path / "store/plan.json").exists()
    assert run_alens("cache", "demo", "demo", tmp_path / "store", *small_options).code == 0
    assert array_hashes(tmp_path / "store") == array_hashes(small)


@pytest.mark.parametrize("file", ["plan.json", "tokens.npy"])
def test_an_altered_byte_of_plan_or_tokens(
    run_alens: Any, small: Path, copy_of: Copy, file: str, small_options: Options
) -> None:
    store = copy_of(small)
    (store / "commits/000002.json").unlink()
    flip(store / file, -80, 1)
    assert_one_line(
        run_alens("cache", "demo", "demo", store, *small_options),
        1,
        str(store / file),
        "see `alens verify`",
    )


def test_a_plan_that_was_cut(run_alens: Any, small: Path, copy_of: Copy, small_options: Options) -> None:
    store = copy_of(small)
    os.truncate(store / "plan.json", 200)
    outcome = run_alens("cache", "demo", "demo", store, *small_options)
    assert_one_line(outcome, 1, f"{store}/plan.json is not whole", "see `alens verify`")
