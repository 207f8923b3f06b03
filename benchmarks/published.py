"""The published training step of "Attention Lens" (arXiv 2310.16270) beside `alens`: seconds to equal held-out KL.

The same model, text, machine, threads and held-out rows. First `alens`: stage one and stage two. Then the published step,
and its faults mended one after the other; then `alens` with the model in the loop, and when a cache pays. With
one of the switches that mend, only that mixture runs beside `alens`. docs/benchmarks.md says what is compared.
Prints Markdown; --out DIR also writes results.json and results.md.

    python benchmarks/published.py [--quick] [--corpus DIR --document-column book] [--budget-s 20] [--out DIR]
    python benchmarks/published.py --vectorised --each-head --every-position --no-padding --lr 3e-4
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
    "DS_ACCELERATOR", "cpu"
)  # a benchmark of CPUs; else DeepSpeed logs that it found no GPU
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from against_published import clock, ours, race, report
from against_published.judge import Judge
from against_published.recipe import (
    COORDINATES,
    LADDER,
    MENDED,
    OTHERS,
    PUBLISHED,
    PUBLISHED_BATCH,
    RATES,
    VECTORISED,
    Recipe,
)

from alens.fit.settings import FitSettings
from alens.lens.directory import LensDirectory
from alens.lens.whitening import Whitening
from alens.machine.allotment import follow_allotment
from alens.model import models
from alens.rows import moments
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings

ALENS, LIVE = "alens, stage one included", "alens, model in the loop"
SWITCHES = ("vectorised", "each_head", "every_position", "no_padding", "from_mean_output", "decay")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="minutes become seconds, and the figures rough")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--corpus", default="demo", help="a corpus as alens takes it, a sentence a row")
    parser.add_argument("--document-column")
    parser.add_argument("--layer", type=int, default=3)
    parser.add_argument("--rows", type=int, help="rows of the cache, an eighth of them held out  [65,536]")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--eval-rows", type=int, help="held-out rows that all are judged by  [4,096]")
    parser.add_argument("--epochs", type=float, help="of alens  [its default]")
    parser.add_argument("--budget-s", type=float, help="seconds of training for each recipe  [20]")
    parser.add_argument(
        "--long-times",
        type=float,
        help="the mended step, at the rate that did best, also runs so many times alens's seconds  [30]",
    )
    parser.add_argument(
        "--clock",
        choices=clock.KINDS,
        default="wall",
        help="cpu: on a machine that others use, with one thread",
    )
    parser.add_argument("--max-steps", type=int, help="steps of each recipe at most")
    parser.add_argument("--only", help="names of recipes, as they stand in the table, comma-separated")
    parser.add_argument("--no-loop", action="store_true", help="leave out alens with the model in the loop")
    parser.add_argument("--no-pays", action="store_true", help="leave out when a cache pays")
    parser.add_argument("--out", type=Path, help="directory for results.json and results.md")
    for flag in (
        "--vectorised",
        "--each-head",
        "--every-position",
        "--no-padding",
        "--from-mean-output",
        "--decay",
    ):
        parser.add_argument(flag, action="store_true", help="mend this")
    parser.add_argument("--whitened", action="store_true", help="whitened z, from the mean output")
    parser.add_argument("--coordinates", choices=COORDINATES)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--batch", type=int, help="sentences, or packed sequences, a forward pass")
    parser.add_argument("--accumulate", type=int, help="forward passes a step")
    asked = parser.parse_args(argv)
    sizes = (
        ("rows", 65_536, 16_384),
        ("eval_rows", 4096, 1024),
        ("budget_s", 20.0, 4.0),
        ("long_times", 30.0, 2.0),
    )
    for name, full, quick in sizes:
        if getattr(asked, name) is None:
            setattr(asked, name, quick if asked.quick else full)
    return asked


def recipes(asked: argparse.Namespace) -> tuple[Recipe, ...]:
    """The ladder and the others; or one recipe, where switches ask for it; or those named by --only."""
    chosen: dict[str, Any] = {name: True for name in SWITCHES if getattr(asked, name)}
    if asked.whitened:
        chosen |= {"coordinates": "white", "from_mean_output": True}
    for name in ("coordinates", "lr"):
        if getattr(asked, name) is not None:
            chosen[name] = getattr(asked, name)
    chosen_recipes: tuple[Recipe, ...] = (
        (replace(PUBLISHED, name="as asked for", **chosen),) if chosen else (*LADDER, *OTHERS)
    )
    if asked.only is not None:
        chosen_recipes = tuple(recipe for recipe in chosen_recipes if recipe.name in asked.only.split(","))
    sizes = {
        name: getattr(asked, name) for name in ("batch", "accumulate") if getattr(asked, name) is not None
    }
    return tuple(replace(recipe, **sizes) for recipe in chosen_recipes)


def measure(asked: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All runs, one after the other."""
    import deepspeed  # noqa: F401  # imports count for nobody

    clock.use(asked.clock)
    threads = follow_allotment()
    text = ours.Text(model=asked.model, corpus=asked.corpus, document_column=asked.document_column)
    rows_per_shard = asked.rows // 8 // asked.seq_len * asked.seq_len
    settings = CacheSettings(
        seq_len=asked.seq_len,
        max_rows=asked.rows,
        layers=(asked.layer,),
        exact_teacher=True,  # all are judged by it; writing it counts for stage one
        rows_per_shard=rows_per_shard,
        top_k=CacheSettings.top_k,
    )
    fit = FitSettings(
        layers=(asked.layer,), eval_rows=asked.eval_rows, epochs=asked.epochs or FitSettings.epochs
    )
    say("alens: stage one")
    cache, cache_s, _ = ours.stage_one(text, work / "cache", settings)
    say("alens: stage two")
    fitted = ours.stage_two(ALENS, work / "cache", work / "lenses", fit, cache_s)
    model = models.load(models.find(asked.model), dtype="float32", device="cpu")
    setting = common_setting(asked, cache, model, fitted)
    curves = [fitted.curve]
    if not asked.no_loop:
        say(LIVE)
        before_s = ours.statistics_s(model, cache)
        live = ours.in_the_loop(LIVE, model, work / "cache", work / "live", fit, before_s)
        curves.append(live.curve)
    for recipe in recipes(asked):
        curves.append(raced(recipe, setting, asked.budget_s, asked.max_steps))
    if asked.long_times and (best := best_rate(curves)):
        recipe = replace(best, name=f"{best.name}, {asked.long_times:g} times alens's seconds")
        curves.append(raced(recipe, setting, asked.long_times * curves[0].last.seconds, asked.max_steps))
    document = summary(asked, setting, curves, threads)
    if not asked.no_pays:
        document["when_a_cache_pays"] = pays(asked, text, setting, work, settings, fit)
    return document


def raced(recipe: Recipe, setting: race.Setting, budget_s: float, max_steps: int | None) -> race.Curve:
    """`race.run`, and a line about it."""
    say(f"{recipe.name}: {budget_s:.0f} s")
    curve = race.run(recipe, setting, budget_s, max_steps)
    say(f"    KL {curve.last.kl:.3f} after {curve.last.steps} steps, {curve.last.seconds:.0f} s")
    return curve


def best_rate(curves: list[race.Curve]) -> Recipe | None:
    """The mended recipe, at the learning rate with the lowest final KL; None where none of them ran."""
    by_name = {curve.name: curve.last.kl for curve in curves}
    ran = [recipe for recipe in (MENDED, *RATES) if recipe.name in by_name]
    return min(ran, key=lambda recipe: by_name[recipe.name], default=None)


def common_setting(
    asked: argparse.Namespace, cache: Cache, model: models.LoadedModel, fitted: ours.Fit
) -> race.Setting:
    """What the recipes share with alens's own fit: its held-out rows, its moments, its mean output."""
    plan = json.loads(LensDirectory(fitted.lenses).fit_json.read_text())
    train, held_out = tuple(plan["train_shards"]), tuple(plan["held_out_shards"])
    statistics = moments.of_cache(cache, [asked.layer], train)
    mean_V = torch.from_numpy(statistics.mean_output_V).float()
    return race.Setting(
        corpus=asked.corpus,
        cache=cache,
        model=model,
        layer=asked.layer,
        judge=Judge(cache, asked.layer, held_out, asked.eval_rows),
        train_shards=train,
        whitening=Whitening.from_moments(statistics.mean_LHE[0], statistics.covariance_LHEE[0]),
        log_mean_output_V=mean_V.clamp_min(torch.finfo(torch.float32).tiny).log(),
    )


def summary(
    asked: argparse.Namespace, setting: race.Setting, curves: list[race.Curve], threads: int
) -> dict[str, Any]:
    """The document: what was run, baselines, every method."""
    model, alens = setting.model, curves[0]
    unembedding_HEV = model.W_O_LHED[asked.layer] @ model.W_U_DV
    plain = setting.judge.each(unembedding_HEV, model.b_U_V.expand(len(unembedding_HEV), -1))
    document: dict[str, Any] = {
        "about": {
            "command": "python benchmarks/published.py " + " ".join(asked.argv),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "threads": threads,
            "clock": asked.clock,
            "date": time.strftime("%Y-%m-%d"),
            "alens": version("alens"),
            "torch": version("torch"),
            "model": asked.model,
            "corpus": Path(asked.corpus).name,
            "layer": asked.layer,
            "rows": setting.cache.plan.rows,
            "eval_rows": asked.eval_rows,
        },
        "baselines": {
            "mean_output": round(setting.judge.mean_output(setting.log_mean_output_V), 4),
            "unembedding": round(sum(plain) / len(plain), 4),
        },
        "methods": [report.method(curve, alens) for curve in curves],
    }
    by_name = {curve.name: curve for curve in curves}
    document["bounds_by_equal_steps"] = [
        report.bound_by_equal_steps(
            by_name[PUBLISHED.name], by_name[other.name], alens, other.accumulate / PUBLISHED.accumulate
        )
        for other in (VECTORISED, PUBLISHED_BATCH)
        if PUBLISHED.name in by_name and other.name in by_name
    ]
    return document


def pays(
    asked: argparse.Namespace,
    text: ours.Text,
    setting: race.Setting,
    work: Path,
    settings: CacheSettings,
    fit: FitSettings,
) -> dict[str, Any]:
    """One layer and all layers, on half the rows, one pass."""
    settings = replace(settings, max_rows=asked.rows // 2)
    layers = {"one": (asked.layer,), "all": tuple(range(setting.cache.plan.model.n_layers))}
    tables = {}
    for name, chosen in layers.items():
        say(f"when a cache pays: {name} layer(s)")
        tables[name] = ours.when_a_cache_pays(text, setting.model, work / name, settings, fit, chosen)
    return tables


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, write the files."""
    asked = arguments(argv)
    asked.argv = list(sys.argv[1:] if argv is None else argv)
    with tempfile.TemporaryDirectory() as folder:
        document = measure(asked, Path(folder))
    tables = report.markdown(document)
    print(tables)
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "results.json").write_text(json.dumps(document, indent=1) + "\n")
        (asked.out / "results.md").write_text(tables)
    return document


if __name__ == "__main__":
    main()
