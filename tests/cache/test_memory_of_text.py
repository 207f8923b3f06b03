"""The memory that reading and tokenising a text takes, whatever the form of its rows."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alens import demo

MEGABYTE = 1_000_000

PEAK = """
def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
"""
"""The peak is not taken from `getrusage`, which begins with the memory of the process that started this one."""

READ = f"""{PEAK}
import sys
from tokenizers import Tokenizer
from alens import demo
from alens.text.corpus import CorpusOptions, resolve
from alens.text.text_tokens import TextTokens

def read(path):
    tokenizer = Tokenizer.from_file(str(demo.MODEL / "tokenizer.json"))
    corpus = resolve(path, CorpusOptions())
    text = TextTokens(corpus=corpus, tokenizer=tokenizer, end_of_text=0, dtype="uint16")
    return sum(len(ids) for _, ids in text.pieces())

for path in sys.argv[1:]:
    print(read(path), peak())
"""

RUN = f"""{PEAK}
import atexit, sys
from alens.cli import main
atexit.register(lambda: print("peak", peak(), file=sys.stderr))
main()
"""


def text_of(megabytes: int) -> str:
    """A text of so many megabytes, as one line."""
    rows = [row for row in pq.read_table(demo.CORPUS).column("text").to_pylist() if row]
    text = " ".join(" ".join(rows).split())
    return (text * (megabytes * MEGABYTE // len(text) + 1))[: megabytes * MEGABYTE]


def a_line(path: Path, text: str) -> Path:
    path.with_suffix(".txt").write_text(text)
    return path.with_suffix(".txt")


def an_object(path: Path, text: str) -> Path:
    path.with_suffix(".jsonl").write_text(json.dumps({"text": text}))
    return path.with_suffix(".jsonl")


def megabytes_of_parquet(path: Path, text: str) -> Path:
    rows = [text[start : start + MEGABYTE] for start in range(0, len(text), MEGABYTE)]
    pq.write_table(pa.table({"text": rows}), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def a_cell_of_arrow(path: Path, text: str) -> Path:
    datasets.Dataset.from_dict({"text": [text]}).save_to_disk(path)
    return path


FORMS = (a_line, an_object, megabytes_of_parquet, a_cell_of_arrow)


def test_memory_does_not_follow_the_length_of_rows(tmp_path: Path) -> None:
    """Tokenising takes 120 bytes for each byte of text given at once: 3 MB would take 360 MB."""
    first = a_line(tmp_path / "first", text_of(1))
    others = [form(tmp_path / form.__name__, text_of(3)) for form in FORMS]
    run = subprocess.run(
        [sys.executable, "-c", READ, *map(str, [first, *others])], capture_output=True, text=True, check=True
    )
    tokens, peaks = zip(*(map(int, line.split()) for line in run.stdout.splitlines()), strict=True)
    assert min(tokens[1:]) > 2.9 * tokens[0]
    assert peaks[-1] - peaks[0] < 100 * MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("command", ["cache", "plan"])
def test_stage_one_of_any_text_takes_less_than_1200_mb(
    tmp_path: Path, form: Callable[[Path, str], Path], command: str
) -> None:
    """The memory includes Python, PyTorch and TransformerLens, which take 650 MB of it."""
    corpus = form(tmp_path / "corpus", text_of(100))
    where = [str(tmp_path / "store")] if command == "cache" else []
    settings = ["--seq-len=64", "--rows-per-shard=128", "--max-rows=128"]
    run = subprocess.run(
        [sys.executable, "-c", RUN, command, "demo", str(corpus), *where, *settings],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stderr.split("peak ")[1]) < 1200 * MEGABYTE
