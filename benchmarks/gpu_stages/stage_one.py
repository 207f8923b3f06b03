"""Rows/s of `alens cache` beside those of the bare model over the same batches: the demo, GPT-2 small with random weights,
and the model that was given."""

import argparse
import os
from pathlib import Path
from typing import Any

from gpu_stages.say import CORPUS, DEVICE, MODEL, REHEARSED, WORK, end_with_run, say

os.environ["DS_ACCELERATOR"] = DEVICE

import both_stages

from alens import demo
from alens.machine.allotment import follow_allotment

SMALL = {"seq_len": 32, "batch_size": 4, "rows_per_shard": 256, "rounds": 1, "shards_a_round": 1}
WHOLE = {"seq_len": 256, "batch_size": 32, "rows_per_shard": 16384, "rounds": 3, "shards_a_round": 1}


def measure(name: str, model: str, corpus: str, exact_teacher: bool) -> None:
    """Say the figures of one model, or why there are none."""
    work = WORK / f"stage-one-{name.replace(' ', '-')}"
    sizes: dict[str, Any] = SMALL if REHEARSED else WHOLE
    asked = argparse.Namespace(
        model=model, corpus=corpus, exact_teacher=exact_teacher, device=DEVICE, **sizes
    )
    say(name, both_stages.stage_one(work, asked))


def made(folder: Path) -> str:
    """A directory with GPT-2 small, random weights and the demo's tokenizer."""
    both_stages.make_model(folder, demo.MODEL)
    return str(folder)


def main() -> None:
    """The given model first: it is why one asks."""
    end_with_run()
    say("threads", follow_allotment())
    if MODEL:
        measure("given model", MODEL, CORPUS, exact_teacher=True)
    measure("demo", "demo", "demo", exact_teacher=True)
    if not REHEARSED:
        measure("random GPT-2 small", made(WORK / "gpt2"), "demo", exact_teacher=False)


if __name__ == "__main__":
    main()
