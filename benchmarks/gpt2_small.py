"""Both stages at the shape of GPT-2 small: 12 layers, 12 heads, d_model 768, V = 50,257, random weights.

Stage one: rows/s of a bare TransformerLens forward pass (all logits) and of `alens cache` (forward, targets,
writing, reading back) over the same batches, alternating in one process; the ratio is what counts. Stage
two: rows/s and peak memory of `alens fit` for one layer, a process of its own. Random weights take as long
as trained ones. Prints one JSON document.

    python benchmarks/gpt2_small.py [--tokenizer DIR] [--corpus FILE] [--rounds 3] [--fit-steps 8]
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
    "DS_ACCELERATOR", "cpu"
)  # this is a benchmark of CPUs; else it logs that it found no GPU

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from alens import demo
from alens.cache import model as models
from alens.cache import shard as shards
from alens.cache import text, tokens
from alens.store.arrays import shard_arrays
from alens.store.paths import StorePaths
from alens.store.reader import open_cache
from alens.store.schema import CacheSettings, Plan
from alens.store.writer import ShardWriter, put_skeleton

SETTINGS = CacheSettings(seq_len=256, rows_per_shard=4096, batch_size=4)


def make_model(folder: Path, tokenizer: Path) -> None:
    """A GPT-2 small with random weights and somebody's tokenizer."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)


def make_plan(
    source: models.ModelSource, subject: models.Subject, corpus: str, store: Path, num_shards: int
) -> Plan:
    """Tokens and skeleton of a cache of `num_shards` shards."""
    settings = CacheSettings(**{**SETTINGS.__dict__, "max_rows": num_shards * SETTINGS.rows_per_shard})
    found = text.resolve(corpus, text.CorpusOptions())
    store.mkdir()
    record = tokens.write_tokens(
        StorePaths(store).tokens,
        found,
        subject.tokenizer,
        source.tokenizer_sha256,
        subject.end_of_text,
        settings,
        source.record.d_vocab,
        lambda _: None,
        lambda: False,
    )
    plan = Plan(model=source.record, corpus=found.record, settings=settings, tokens=record)
    weights = {"model/W_O": subject.W_O_LHED, "model/W_U": subject.W_U_DV, "model/b_U": subject.b_U_V}
    put_skeleton(store, plan, {name: value.float().numpy() for name, value in weights.items()})
    return plan


def bare_forward(subject: models.Subject, plan: Plan, tokens_BT: Any, shard: int) -> float:
    """Seconds of the model alone over a shard's batches, all logits made and thrown away."""
    from alens.cache.plan import batches

    since = time.monotonic()
    with torch.inference_mode():
        for chosen in batches(plan, shard):
            subject.bridge(torch.from_numpy(tokens_BT[chosen].astype("int64")), return_type="logits")
    return time.monotonic() - since


def cached(
    subject: models.Subject, plan: Plan, store: Path, tokens_BT: Any, shard: int
) -> tuple[float, float]:
    """Seconds of `alens cache` over the same shard: computing, and writing with fsync and reading back."""
    since = time.monotonic()
    arrays = shards.compute(subject, plan, tokens_BT, shard, lambda _: None)
    computed = time.monotonic()
    ShardWriter(store, plan).write(shard, arrays, {})
    return computed - since, time.monotonic() - computed


def stage_one(work: Path, corpus: str, rounds: int) -> dict[str, Any]:
    """Alternating rounds, one shard each, after a warm-up."""
    source = models.find(str(work / "model"))
    subject = models.load(source, dtype="float32", device="cpu")
    plan = make_plan(source, subject, corpus, work / "cache", rounds + 1)
    tokens_BT = open_cache(work / "cache").tokens
    bare_forward(subject, plan, tokens_BT, 0)
    cached(subject, plan, work / "cache", tokens_BT, 0)
    bare, ours = [], []
    for shard in range(1, rounds + 1):
        bare.append(bare_forward(subject, plan, tokens_BT, shard))
        ours.append(cached(subject, plan, work / "cache", tokens_BT, shard))
    rows = plan.settings.rows_per_shard
    specs = shard_arrays(plan).values()
    files = sum(file["bytes"] for file in open_cache(work / "cache").record(1)["files"].values())
    return {
        "bare_rows_a_s": round(rows / statistics.median(bare), 1),
        "cache_rows_a_s": round(rows / statistics.median(a + b for a, b in ours), 1),
        "ratio_cache_to_bare": [round((a + b) / c, 3) for (a, b), c in zip(ours, bare, strict=True)],
        "writing_share": round(statistics.median(b / (a + b) for a, b in ours), 3),
        "bytes_a_row": sum(spec.row_bytes for spec in specs if spec.dimensions[0] == "row"),
        "bytes_a_row_on_disk": round(files / rows, 1),
    }


def stage_two(work: Path, steps: int, batch_rows: int) -> dict[str, Any]:
    """`alens fit` of layer 11 as a process: its own rate, and its peak memory."""
    command = [
        sys.executable,
        "-m",
        "alens",
        "fit",
        str(work / "cache"),
        str(work / "lenses"),
        "--layers",
        "11",
    ]
    command += [
        "--steps",
        str(steps),
        "--batch-rows",
        str(batch_rows),
        "--eval-rows",
        "1024",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"fit": done.stdout.splitlines(), "fit_peak_memory_mib": peak_kib // 1024}


def main() -> None:
    """Make the model, measure both stages, print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=demo.MODEL,
        help="a directory with a tokenizer of at most 50,257 tokens",
    )
    parser.add_argument("--corpus", default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fit-steps", type=int, default=8)
    parser.add_argument("--batch-rows", type=int, default=1024)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_model(work / "model", asked.tokenizer)
        found = {"threads": torch.get_num_threads(), **stage_one(work, asked.corpus, asked.rounds)}
        print(json.dumps(found | stage_two(work, asked.fit_steps, asked.batch_rows), indent=1))


if __name__ == "__main__":
    main()
