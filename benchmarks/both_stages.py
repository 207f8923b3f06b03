"""How fast both stages are, beside the bare model: a model of yours, or one of the shape of GPT-2 small.

Stage one: rows/s of a bare TransformerLens forward pass (all logits) and of `alens cache` (forward, targets, writing,
reading back) over the same batches, alternating in one process; the ratio is what counts; and where the time goes. Stage
two: rows/s and peak memory of `alens fit` for the last layer and for all, each a process of its own. Without --model the
model has 12 layers, 12 heads, d_model 768, V = 50,257 and random weights, which take as long as trained ones. Prints one
JSON document. On a machine that others use, `--clock cpu` counts the CPU time of the process.

    python benchmarks/both_stages.py [--tokenizer DIR] [--corpus FILE] [--rounds 3] [--shards-a-round 3] [--fit-steps 8]
    python benchmarks/both_stages.py --model DIR --corpus FILE --seq-len 128 --batch-size 16 --exact-teacher --clock cpu
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
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it logs that it found no GPU

import torch
from against_published import clock
from transformers import GPT2Config, GPT2LMHeadModel

from alens import demo
from alens.cache import target_compression
from alens.cache.prepare import prepare
from alens.cache.request import CacheRequest
from alens.cache.shard import batches, compute
from alens.cache.write_cache import ShardJob
from alens.job.progress import never, silent
from alens.machine.allotment import follow_allotment
from alens.machine.blocks import logit_blocks
from alens.model import activations, models
from alens.store.arrays import shard_arrays
from alens.store.cache_reader import Cache, open_cache
from alens.store.schema import CacheSettings, Plan
from alens.store.writer import ShardWriter


def make_model(folder: Path, tokenizer: Path) -> None:
    """A GPT-2 small with random weights and somebody's tokenizer."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)


def make_request(work: Path, asked: argparse.Namespace) -> CacheRequest:
    """A cache of a shard to warm up with, and those of all rounds."""
    settings = CacheSettings(
        seq_len=asked.seq_len,
        rows_per_shard=asked.rows_per_shard,
        batch_size=asked.batch_size,
        exact_teacher=asked.exact_teacher,
        max_rows=(1 + asked.rounds * asked.shards_a_round) * asked.rows_per_shard,
    )
    return CacheRequest(
        model=asked.model, corpus=asked.corpus, store=work / "cache", settings=settings, device=asked.device
    )


def bare_forward(model: models.LoadedModel, plan: Plan, tokens_BT: Any, shards: Iterable[int]) -> float:
    """Seconds of the model alone over the shards' batches, all logits made and thrown away."""
    since = clock.now()
    with torch.inference_mode():
        for shard in shards:
            for chosen in batches(plan, shard):
                tokens = torch.from_numpy(tokens_BT[chosen].astype("int64")).to(model.device)
                model.bridge(tokens, return_type="logits")
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return clock.now() - since


def cached(request: CacheRequest, cache: Cache, model: models.LoadedModel, shards: Iterable[int]) -> float:
    """Seconds of `alens cache` over the same shards, the last one's fsync and reading back included."""
    since = clock.now()
    ShardJob(request, cache, model, 0, silent, never).write(list(shards))
    return clock.now() - since


def peak_mib() -> int:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def parts(model: models.LoadedModel, plan: Plan, tokens_BT: Any, work: Path) -> dict[str, float]:
    """Where the time of one shard goes, one thing after the other, microseconds a row."""
    rows, T = plan.settings.rows_per_shard, plan.settings.seq_len
    spent = {"forward, one position unembedded": 0.0, "logits and their reduction": 0.0}
    output_V = torch.zeros(plan.model.d_vocab, dtype=torch.float64)
    workspace = target_compression.Workspace()
    with torch.inference_mode():
        for chosen in batches(plan, 0):
            since = clock.now()
            outputs = activations.run(model, torch.from_numpy(tokens_BT[chosen].astype("int64")), plan.layers)
            forward = clock.now()
            final_ND = outputs.final_BTD.flatten(0, 1)
            uniforms_NM = torch.rand(len(final_ND), plan.settings.tail_samples, dtype=torch.float64)
            counted_N = torch.arange(len(final_ND)) % T > 0
            for block in logit_blocks(len(final_ND), plan.model.d_vocab, model.device):
                target_compression.compress(
                    final_ND[block], model.W_U_DV, model.b_U_V, uniforms_NM[block], plan.settings.top_k,
                    counted_N[block], output_V, workspace,
                )  # fmt: skip
            spent["forward, one position unembedded"] += forward - since
            spent["logits and their reduction"] += clock.now() - forward
    since = clock.now()
    arrays = compute(model, plan, tokens_BT, 0, lambda _: None)
    spent["statistics, casts, placing"] = clock.now() - since - sum(spent.values())
    since = clock.now()
    ShardWriter(work / "cache", plan).write(
        0, arrays, {"worker": "0/1", "rows": rows, "seconds": 1, "finished": 0}
    )
    spent["writing, if nothing ran beside it"] = clock.now() - since
    return {what: round(seconds / rows * 1e6, 1) for what, seconds in spent.items()}


def stage_one(work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Alternating rounds after a warm-up."""
    request, shards_a_round = make_request(work, asked), asked.shards_a_round
    source = models.find(request.model)
    prepared = prepare(request, source, silent, never)
    plan = prepared.plan
    model = prepared.model or models.load(source, dtype="float32", device=request.device)
    cache = open_cache(request.store)
    bare_forward(model, plan, cache.tokens, [0])
    bare_mib = peak_mib()
    cached(request, cache, model, [0])
    bare, ours = [], []
    for number in range(asked.rounds):
        first = 1 + number * shards_a_round
        shards = range(first, first + shards_a_round)
        bare.append(bare_forward(model, plan, cache.tokens, shards))
        ours.append(cached(request, cache, model, shards))
    cache_mib = peak_mib()
    rows = plan.settings.rows_per_shard * shards_a_round
    specs = shard_arrays(plan).values()
    files = sum(file["bytes"] for file in open_cache(request.store).commits.record(1)["files"].values())
    return {
        "model": {"layers": plan.model.n_layers, "heads": plan.model.n_heads, "d_vocab": plan.model.d_vocab},
        "bare_rows_a_s": round(rows / statistics.median(bare), 1),
        "cache_rows_a_s": round(rows / statistics.median(ours), 1),
        "ratio_cache_to_bare": [round(a / b, 3) for a, b in zip(ours, bare, strict=True)],
        "peak_memory_mib": {"bare": bare_mib, "with cache": cache_mib},
        # One thing after the other has a time on a CPU alone.
        "microseconds_a_row": parts(model, plan, cache.tokens, work) if model.device.type == "cpu" else None,
        "bytes_a_row": sum(spec.row_bytes for spec in specs if spec.dimensions[0] == "row"),
        "bytes_a_row_on_disk": round(files / plan.settings.rows_per_shard, 1),
    }


def stage_two(work: Path, layers: str, steps: int, batch_rows: int, device: str) -> dict[str, Any]:
    """`alens fit` of some layers as a process: its own rate, and its peak memory."""
    lenses = work / f"lenses-{layers}"
    command = [sys.executable, "-m", "alens", "fit", str(work / "cache"), str(lenses), "--layers", layers]
    command += ["--steps", str(steps), "--batch-rows", str(batch_rows), "--tolerance", "0"]
    command += ["--eval-rows", "1024", "--device", device]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"alens fit of layers {layers} ended with {process.returncode}")
    shutil.rmtree(lenses)
    return {"layers": layers, "fit": said, "peak_memory_mib": usage.ru_maxrss // 1024}


def main() -> None:
    """Make the model, measure both stages, print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a model as alens takes it  [GPT-2 small, random weights]")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=demo.MODEL,
        help="a directory with a tokenizer of at most 50,257 tokens",
    )
    parser.add_argument("--corpus", default="demo")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rows-per-shard", type=int, default=4096)
    parser.add_argument("--exact-teacher", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the model runs")
    parser.add_argument("--clock", choices=clock.KINDS, default="wall")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards-a-round", type=int, default=3)
    parser.add_argument("--fit-steps", type=int, default=8, help="0: no stage two")
    parser.add_argument("--batch-rows", type=int, default=1024)
    asked = parser.parse_args()
    clock.use(asked.clock)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if asked.model is None:
            asked.model = str(work / "model")
            make_model(work / "model", asked.tokenizer)
        threads = follow_allotment()
        report: dict[str, Any] = {"threads": threads, "clock": asked.clock, **stage_one(work, asked)}
        last = report["model"]["layers"] - 1
        if asked.fit_steps:
            report["stage_two"] = [
                stage_two(work, str(last), asked.fit_steps, asked.batch_rows, asked.device),
                stage_two(work, f"0-{last}", max(2, asked.fit_steps // 4), asked.batch_rows, asked.device),
            ]
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
