"""What transfer costs when it is measured end to end: a copy of a model is fine-tuned, and both get lenses.

In: a text (default: the bundled one). The copy is the bundled model, trained on that text in another form: lower case,
no punctuation. Out, printed: losses of both models on both forms, then what `alens transfer` says of the lenses of
the model on the copy, beside the copy's own, on the same rows; with --text changed, the copy runs on the other form.

    python benchmarks/transfer.py [--corpus FILE|DIR] [--document-column NAME] [--steps 100] [--home LENSES STORE] [--keep DIR]

`--keep DIR` leaves copy, caches and lenses in DIR, for `alens transfer DIR/lenses DIR/cache --to DIR/copy-cache`.
Shapes: B sequences, T tokens, V vocabulary.
"""

import argparse
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from alens import demo
from alens.machine.allotment import follow_allotment
from alens.text.corpus import CorpusOptions, resolve

SEQUENCES_A_STEP = 16
TOKENS = 128
LEARNING_RATE = 1e-3
JUDGED_SEQUENCES = 64
MOST_CHARACTERS = 8_000_000
"""Characters of the text that are used: more than the steps see."""
SEED = 0


def pieces(corpus: str, document_column: str | None) -> Iterator[tuple[str, bool]]:
    """Stretches of the text, and whether a document starts with each."""
    total = 0
    for piece in resolve(corpus, CorpusOptions(document_column=document_column)).stretches():
        yield piece.text, piece.starts_document
        total += len(piece.text)
        if total > MOST_CHARACTERS:
            return


def plain(text: str) -> str:
    """Lower case, and letters, digits and single spaces only."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def write_changed(corpus: str, document_column: str | None, path: Path) -> None:
    """The text in its other form, as a corpus."""
    documents: list[int] = []
    texts: list[str] = []
    number = -1
    for text, starts in pieces(corpus, document_column):
        number += starts or number < 0
        documents.append(number)
        texts.append(plain(text))
    pq.write_table(pa.table({"text": texts, "document": documents}), path)


def sequences(corpus: str, document_column: str | None, count: int) -> torch.Tensor:
    """(B, T) tokens from the start of a text; from its start again where it is short."""
    tokenizer = Tokenizer.from_file(str(demo.MODEL / "tokenizer.json"))
    wanted, ids = count * TOKENS, []
    for text, _ in pieces(corpus, document_column):
        ids += tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) >= wanted:
            break
    return torch.tensor(list(itertools.islice(itertools.cycle(ids), wanted))).view(count, TOKENS)


def next_token_loss(model: GPT2LMHeadModel, tokens_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token, nats."""
    logits_BTV = model(input_ids=tokens_BT[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten())


@torch.no_grad()
def losses(model: GPT2LMHeadModel, texts: dict[str, torch.Tensor]) -> str:
    """For people."""
    return ", ".join(f"{float(next_token_loss(model, tokens)):.3f} {name}" for name, tokens in texts.items())


def fine_tune(corpus: str, document_column: str | None, changed: Path, steps: int, out: Path) -> None:
    """Train a copy of the bundled model on the changed text, and write it as a Hugging Face directory."""
    torch.manual_seed(SEED)
    model = GPT2LMHeadModel.from_pretrained(demo.MODEL, dtype=torch.float32)
    data_BT = sequences(str(changed), "document", JUDGED_SEQUENCES + steps * SEQUENCES_A_STEP)
    judged_BT, data_BT = data_BT[:JUDGED_SEQUENCES], data_BT[JUDGED_SEQUENCES:]
    texts = {
        "on the text": sequences(corpus, document_column, JUDGED_SEQUENCES),
        "on its other form": judged_BT,
    }
    print(f"next-token loss before, nats: {losses(model, texts)}", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    order = np.random.default_rng(SEED).permutation(len(data_BT))
    since = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / steps)
        rows = order[step * SEQUENCES_A_STEP : (step + 1) * SEQUENCES_A_STEP]
        optimizer.zero_grad()
        next_token_loss(model, data_BT[rows]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    print(f"next-token loss after {steps} steps ({time.monotonic() - since:.0f} s): {losses(model, texts)}", flush=True)  # fmt: skip
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo.MODEL / name, out / name)


def alens(*words: object) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "alens", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def measure(given: argparse.Namespace, work: Path) -> None:
    """Fine-tune, cache and fit both, and transfer."""
    changed = work / "changed.parquet"
    write_changed(given.corpus, given.document_column, changed)
    fine_tune(given.corpus, given.document_column, changed, given.steps, work / "copy")
    text = [given.corpus, *(["--document-column", given.document_column] if given.document_column else [])]
    other = [str(changed), "--document-column", "document"] if given.text == "changed" else text
    size = ["--max-rows", given.rows, "--rows-per-shard", 8192, "--exact-teacher", "--device", "cpu"]
    home = given.home or (work / "lenses", work / "cache")
    made = [] if given.home else [("demo", text, "")]
    for model, corpus, name in (*made, (work / "copy", other, "copy-")):
        alens("cache", model, corpus[0], work / f"{name}cache", *corpus[1:], *size)
        alens("fit", work / f"{name}cache", work / f"{name}lenses", "--eval-rows", 8192, "--device", "cpu")
    copy = ["--to", work / "copy-cache", "--native", work / "copy-lenses"]
    print(alens("transfer", *home, *copy, "--device", "cpu"))


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default="demo")
    parser.add_argument("--document-column")
    parser.add_argument(
        "--text", choices=("same", "changed"), default="same", help="what the copy is cached on"
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--home", nargs=2, type=Path, metavar=("LENSES", "STORE"), help="take these for the model"
    )
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    given = parser.parse_args()
    follow_allotment()
    if given.keep:
        given.keep.mkdir(parents=True)
        measure(given, given.keep)
    else:
        with tempfile.TemporaryDirectory() as work:
            measure(given, Path(work))


if __name__ == "__main__":
    main()
