"""`alens cache` as people run it: exit codes, one line for each mistake, signals, a full disk."""

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alens import cli, demo
from alens.store.reader import open_cache

Copy = Callable[[Path], Path]
SMALL = [
    *("--seq-len", "32", "--rows-per-shard", "128", "--max-rows", "512", "--batch-size", "2"),
    *("--top-k", "4", "--tail-samples", "4", "--layers", "0,2-3", "--device", "cpu"),
]
MANY_SHARDS = [*SMALL[:5], "6144", *SMALL[6:]]


def array_hashes(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (store / "arrays.zarr").rglob("*")
        if path.is_file()
    }


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def assert_one_line(outcome: Any, code: int, *says: str) -> None:
    assert outcome.code == code, outcome
    assert outcome.stderr.startswith("alens: "), outcome.stderr
    assert outcome.stderr.count("\n") == 1, outcome.stderr
    assert "Traceback" not in outcome.stderr
    for part in says:
        assert part in outcome.stderr


def written(store: Path, options: list[str]) -> Path:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.run(["cache", "demo", "demo", str(store), *options]) == 0
    return store


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed cache that the command wrote. Shared: copy it before writing."""
    return written(tmp_path_factory.mktemp("small") / "store", SMALL)


# What it says when all is well


def test_it_says_what_it_wrote_and_that_running_again_wrote_nothing(run_alens: Any, tmp_path: Path) -> None:
    code, out, err = run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL)
    assert code == 0
    assert out.startswith("wrote 4 shards (512 rows, ")
    assert "sealed: 4 shards, 512 rows\n" in out
    assert "cache 512 of 512 rows (100 %)" in err
    code, out, err = run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL)
    assert (code, err) == (0, "")
    assert out == f"wrote 0 shards (0 rows) to {tmp_path}/store\nsealed: 4 shards, 512 rows\n"


def test_a_worker_says_how_much_is_missing(run_alens: Any, tmp_path: Path) -> None:
    code, out, _ = run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL, "--worker", "1/4")
    assert code == 0
    assert "not sealed yet: 1 of 4 shards are committed\n" in out


def test_it_says_what_was_left_out(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some words of text\n" * 60)
    options = ["--seq-len", "16", "--rows-per-shard", "128", "--layers", "0"]
    code, out, _ = run_alens("cache", "demo", tmp_path / "text.txt", tmp_path / "store", *options)
    left_out = open_cache(tmp_path / "store").plan.tokens.sequences_left_out
    assert (code, left_out > 0) == (0, True)
    assert f"left out: the last {left_out} sequences of the text, which do not fill a shard\n" in out


def test_every_option_reaches_the_plan(run_alens: Any, tmp_path: Path) -> None:
    options = ["--exact-teacher", "--seed", "7", "--dtype", "bfloat16", "--document-column", "document"]
    assert run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL, *options).code == 0
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
        (["--text-column", "body"], "demo has no column 'body': it has text, document; choose with --text-column"),
        (["--document-column", "book"], "demo has no column 'book': it has text, document"),
        (["--document-column", "document", "--row-documents"], "exclude each other"),
        (["--seq-len", "many"], "'many' is not a valid integer"),
        (["--config", "/no/such.toml"], "cannot read /no/such.toml: No such file or directory"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be(run_alens: Any, tmp_path: Path, arguments: list[str], says: str) -> None:
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL, *arguments)
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
        (lambda folder: "no-such-model", "no-such-model is no file or directory here"),
        (lambda folder: folder, "is no model directory: it has no config.json"),
        (lambda folder: demo.MODEL / "config.json", "config.json is no model directory"),
        (broken_model(lambda m: (m / "model.safetensors").unlink()), "has no .safetensors weights"),
        (broken_model(lambda m: (m / "tokenizer.json").unlink()), "has no tokenizer"),
        (broken_model(lambda m: (m / "config.json").write_text("{")), "config.json is no model configuration"),
        (broken_model(lambda m: os.truncate(m / "model.safetensors", 10**6)), "is no readable safetensors file"),
        (broken_model(lambda m: (m / "tokenizer.json").write_text("{")), "cannot load the tokenizer in"),
    ],
)  # fmt: skip
def test_what_is_no_model(run_alens: Any, tmp_path: Path, model: Callable[[Path], Any], says: str) -> None:
    assert_one_line(run_alens("cache", model(tmp_path), "demo", tmp_path / "store", *SMALL), 2, says)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "missing.txt does not exist: give a file, a directory, a hub dataset id, or `demo`"),
        ("table.csv", b"text\nx\n", "table.csv is not a .parquet, .jsonl or .txt file"),
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
    run_alens: Any, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    outcome = run_alens("cache", "demo", tmp_path / name, tmp_path / "store", *SMALL)
    assert_one_line(outcome, 2, says, name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_files_that_may_not_be_read(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("words " * 1000)
    (tmp_path / "text.txt").chmod(0)
    outcome = run_alens("cache", "demo", tmp_path / "text.txt", tmp_path / "store", *SMALL)
    assert_one_line(outcome, 2, "cannot read", "text.txt: Permission denied")


def test_a_store_that_is_a_file(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    assert_one_line(
        run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL), 2, "store is not a directory"
    )
    assert (tmp_path / "store").read_text() == "mine"


def test_a_store_that_holds_other_things(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    before = state(tmp_path)
    outcome = run_alens("cache", "demo", "demo", tmp_path, *SMALL)
    assert_one_line(outcome, 2, "is neither empty nor a cache (it holds notes.txt): name another directory")
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    "option", [["--seed", "1"], ["--top-k", "5"], ["--layers", "0"], ["--text-column", "x"]]
)
def test_a_store_of_another_plan(run_alens: Any, small: Path, copy_of: Copy, option: list[str]) -> None:
    store = copy_of(small)
    before = state(store)
    outcome = run_alens("cache", "demo", "demo", store, *SMALL, *option)
    name = option[0][2:].replace("-", "_")
    assert_one_line(outcome, 2, f"{store} holds another plan: {name} is ", "(the cache: ")
    assert state(store) == before


# Failures: exit code 1, one line, nothing lost


def test_a_place_where_nothing_can_be_written(run_alens: Any) -> None:
    assert_one_line(
        run_alens("cache", "demo", "demo", "/proc/alens-store", *SMALL), 1, "cannot write /proc/alens-store"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL)
    assert_one_line(outcome, 1, "cannot write", "Permission denied")


def test_no_space_for_the_next_shard(
    run_alens: Any, small: Path, copy_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy_of(small)
    (store / "MANIFEST.json").unlink()
    (store / "commits/000002.json").unlink()
    before = state(store)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 5000))
        outcome = run_alens("cache", "demo", "demo", store, *SMALL)
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[-1].startswith(f"alens: no space for the next shard in {store}: ")
    assert state(store) == before


@contextlib.contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """The operating system refuses larger files, as a full disk refuses all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses_in_the_middle_of_a_shard(run_alens: Any, small: Path, copy_of: Copy) -> None:
    store = copy_of(small)
    (store / "commits/000002.json").unlink()
    with files_of_at_most(20_000):  # z of a shard takes 49 kB
        outcome = run_alens("cache", "demo", "demo", store, *SMALL)
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[-1].startswith("alens: cannot write ")
    assert "File too large; nothing that was committed is lost, mend it and run again" in outcome.stderr
    assert not list(store.rglob("*.partial"))
    assert run_alens("cache", "demo", "demo", store, *SMALL).code == 0
    assert array_hashes(store) == array_hashes(small)


def test_a_disk_that_refuses_before_there_is_a_plan(run_alens: Any, small: Path, tmp_path: Path) -> None:
    with files_of_at_most(100_000):  # W_U takes 3 MB
        outcome = run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL)
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[-1].startswith("alens: cannot write ")
    assert "File too large" in outcome.stderr
    assert not (tmp_path / "store/plan.json").exists()
    assert run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL).code == 0
    assert array_hashes(tmp_path / "store") == array_hashes(small)


@pytest.mark.parametrize("file", ["plan.json", "tokens.npy"])
def test_a_damaged_store(run_alens: Any, small: Path, copy_of: Copy, file: str) -> None:
    store = copy_of(small)
    (store / "commits/000002.json").unlink()
    os.truncate(store / file, 200)
    assert_one_line(
        run_alens("cache", "demo", "demo", store, *SMALL), 1, str(store / file), "restore it from a copy"
    )


# Stopping: exit code 75, run again to go on


def test_a_time_limit_stops_cleanly(run_alens: Any, tmp_path: Path) -> None:
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", *SMALL, "--max-minutes", "0")
    assert_one_line(outcome, 75, "stopped while tokenising", "run again")


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 shards written without a break, to compare with."""
    return written(tmp_path_factory.mktemp("many") / "store", MANY_SHARDS)


def interrupt(store: Path, number: signal.Signals) -> tuple[int, str]:
    """Starts the command and sends it a signal once two shards are committed: its exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "alens", "cache", "demo", "demo", str(store), *MANY_SHARDS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 400
        while not (store / "commits/000001.json").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(number)
        _, err = process.communicate(timeout=400)
    finally:
        process.kill()
        process.wait()
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_between_two_batches(
    run_alens: Any, tmp_path: Path, many_shards: Path, number: signal.Signals
) -> None:
    store = tmp_path / "store"
    code, err = interrupt(store, number)
    assert code == 75, err
    assert err.splitlines()[-1].startswith("alens: stopped; ")
    assert "run again to go on" in err
    assert not list(store.rglob("*.partial"))
    done = len(open_cache(store).shards)
    assert 2 <= done < 48
    assert f"{128 * done:,} of this worker's 6,144 rows are committed" in err
    if number == signal.SIGTERM:
        assert run_alens("cache", "demo", "demo", store, *MANY_SHARDS).code == 0
        assert array_hashes(store) == array_hashes(many_shards)


def test_a_killed_run_goes_on_where_it_was(run_alens: Any, tmp_path: Path, many_shards: Path) -> None:
    store = tmp_path / "store"
    code, _ = interrupt(store, signal.SIGKILL)
    assert code == -signal.SIGKILL
    cache = open_cache(store)
    assert 2 <= len(cache.shards) < 48
    for shard in cache.shards:
        cache.read_shard("targets/ids", shard)
    outcome = run_alens("cache", "demo", "demo", store, *MANY_SHARDS)
    assert outcome.code == 0
    assert outcome.stdout.startswith(f"wrote {48 - len(cache.shards)} shards")
    whole = {name: sha for name, sha in array_hashes(store).items() if not name.endswith(".partial")}
    assert whole == array_hashes(many_shards)
    assert (store / "MANIFEST.json").read_bytes() == (many_shards / "MANIFEST.json").read_bytes()


# --config


def test_a_file_of_settings_and_a_flag_that_beats_it(run_alens: Any, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        "seq_len = 16\nrows-per-shard = 128\nmax_rows = 256\ntop_k = 3\nexact_teacher = true\nlayers = [1]\n"
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
            "has the unknown key 'seqlen': valid keys are batch-size, corpus, corpus-revision, device",
        ),
        ("[cache]\nseq_len = 3", "has the unknown key 'cache': valid keys are"),
        ("seq_len =", "is no TOML file"),
        ("seq_len = 'long'", "'long' is not a valid integer"),
        ("layers = 'all'", "'all' is not a list of numbers"),
        ("layers = ['a']", "is not a list of numbers"),
    ],
)
def test_a_file_of_settings_that_is_wrong(run_alens: Any, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", "--config", tmp_path / "run.toml")
    assert_one_line(outcome, 2, says)


def test_two_first_jobs_at_the_same_moment_write_one_cache(tmp_path: Path, run_alens: Any) -> None:
    """Neither waits for the other: both tokenise, the same plan comes out, and each writes its shards."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    command = [sys.executable, "-m", "alens", "cache", "demo", "demo", str(together), *SMALL]
    jobs = [
        subprocess.Popen([*command, "--worker", f"{index}/2"], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for index in range(2)
    ]
    for job in jobs:
        _, errors = job.communicate(timeout=400)
        assert job.returncode == 0, errors
    assert (
        run_alens("cache", "demo", "demo", together, *SMALL).code == 0
    )  # seals, if both thought the other would
    assert run_alens("cache", "demo", "demo", alone, *SMALL).code == 0
    assert array_hashes(together) == array_hashes(alone)
    assert open_cache(together).fingerprint == open_cache(alone).fingerprint is not None
