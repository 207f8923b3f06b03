"""What a lens does not show, in numbers: the measurements behind docs/limits.md.

In: a cache with the site `resid_post` and lenses fitted on it (default: both are made, of the demo); perhaps lenses
of the same model fitted on other text. Out, as one JSON document:
- control: held-out KL of lenses on so many random directions of the residual stream as a head has, after each layer,
  beside the heads' own: how much can be read of anything that is that wide;
- text: on the same rows, the lenses of the other text beside these, and how many of ten top tokens they share;
- use: for each head, what its lens gains over the mean output beside what the model loses without the head, and the
  rank correlation of the two.

    python benchmarks/limits.py [--store STORE --lenses LENSES] [--other LENSES] [--seeds 3] [--sequences 32]
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from alens import CacheRequest, FitRequest, evaluate, fit_lenses, load_lenses, open_cache, write_cache
from alens.fit.settings import FitSettings
from alens.lens.designs.design import AffineDesign, Ground
from alens.lens.lenses import Lenses
from alens.machine.allotment import follow_allotment
from alens.machine.blocks import row_blocks
from alens.model.edits import Edit, run_edited
from alens.reading.lensed_model import LensedModel
from alens.rows import moments
from alens.rows.columns import RowReader
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings

TOP = 10
DEMO = CacheSettings(max_rows=65536, rows_per_shard=8192, exact_teacher=True, sites=("resid_post",))


class RandomDirections(AffineDesign):
    """A linear lens on `rank` fixed random directions of the values: what a head of that width reads at random."""

    def __init__(self, ground: Ground, *, rank: int = 32) -> None:
        super().__init__(ground)
        self.down: torch.Tensor
        H, E, V = ground.num_heads, ground.width, len(ground.log_mean_output_V)
        raw_HER = ground.random(H, E, rank)
        self.register_buffer(
            "down", torch.linalg.solve(ground.whitening.scale_HEE, raw_HER), persistent=False
        )
        self.down = torch.linalg.qr(self.down).Q  # the same span, on a scale that is easy to fit
        self.up = nn.Parameter(torch.zeros(H, rank, V))
        self.bias = nn.Parameter(ground.log_mean_output_V.float().expand(H, -1).clone())

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.bmm(self.down, self.up), self.bias


def main() -> None:
    """Measure, print."""
    arguments = parse()
    follow_allotment()
    with tempfile.TemporaryDirectory() as folder:
        store, lenses = made(Path(folder), arguments)
        cache, fitted = open_cache(store), load_lenses(lenses)
        report: dict[str, Any] = {
            "store": str(store),
            "lenses": str(lenses),
            "threads": torch.get_num_threads(),
        }
        evaluation = evaluate(fitted, cache)
        gains = {
            layer: [evaluation.mean_output.kl - head.kl for head in heads]
            for layer, heads in evaluation.lens.items()
        }
        report["rows"], report["mean_output_kl"] = evaluation.rows, evaluation.mean_output.kl
        report["control"] = control(Path(folder), cache, fitted, evaluation, arguments.seeds)
        if arguments.other:
            report["text"] = other_text(cache, fitted, load_lenses(arguments.other))
        report["use"] = use(cache, fitted, gains, arguments.sequences)
    print(json.dumps(report, indent=1))


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path)
    parser.add_argument("--lenses", type=Path)
    parser.add_argument("--other", type=Path, help="lenses of the same model, fitted on other text")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=32)
    arguments = parser.parse_args()
    if (arguments.store is None) != (arguments.lenses is None):
        parser.error("give --store and --lenses together, or neither")
    return arguments


def made(folder: Path, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The cache and lenses that were given, or those of the demo."""
    if arguments.store:
        return arguments.store, arguments.lenses
    store, lenses = folder / "cache", folder / "lenses"
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=DEMO))
    fit_lenses(FitRequest(store=store, lenses=lenses, settings=FitSettings(eval_rows=8192)))
    return store, lenses


def control(folder: Path, cache: Cache, fitted: Lenses, evaluation: Any, seeds: int) -> list[dict[str, Any]]:
    """By layer: KL of the heads, of random directions and of all of the residual stream."""
    fit = fitted.record.fit
    same = {
        name: fit[name] for name in ("eval_rows", "min_position", "tolerance", "batch_rows") if name in fit
    }
    rank = {"rank": fitted.record.model.d_head}
    random: dict[int, list[float]] = {layer: [] for layer in evaluation.lens}
    for seed in range(seeds):
        settings = FitSettings(
            site="resid_post", lens="limits:RandomDirections", lens_options=rank, seed=seed, layers=tuple(evaluation.lens), **same
        )  # fmt: skip
        fit_lenses(FitRequest(store=Path(cache.root), lenses=folder / f"random-{seed}", settings=settings))
        judged = evaluate(load_lenses(folder / f"random-{seed}"), cache, held_out_by=fitted)
        for layer in random:
            random[layer].append(judged.lens[layer][0].kl)
    settings = FitSettings(site="resid_post", lens="linear", layers=tuple(evaluation.lens), **same)
    fit_lenses(FitRequest(store=Path(cache.root), lenses=folder / "whole", settings=settings))
    whole = evaluate(load_lenses(folder / "whole"), cache, held_out_by=fitted)
    return [
        {
            "layer": layer,
            "heads_kl": [head.kl for head in heads],
            "random_directions_kl": random[layer],
            "whole_residual_kl": whole.lens[layer][0].kl,
        }
        for layer, heads in evaluation.lens.items()
    ]


def other_text(cache: Cache, fitted: Lenses, other: Lenses) -> dict[str, Any]:
    """The same rows through lenses of both texts."""
    fits = fitted.record.lenses
    shard = fitted.record.cache["held_out_shards"][0]
    reader = RowReader(cache, fits, cache.plan.settings.best_teacher, 1, torch.device("cpu"))
    columns = reader.shard(shard, stop=4096)
    shared = []
    for layer, heads in fits.by_layer.items():
        z_NHE = reader.z(columns, layer)
        for h in range(len(heads)):
            for rows in row_blocks(len(columns), z_NHE.device):
                ours, theirs = (
                    which.layer(layer).maps.logits(h, z_NHE[rows, h]).topk(TOP).indices
                    for which in (fitted, other)
                )
                shared.append((ours[:, :, None] == theirs[:, None]).any(2).float().mean(1).mean().item())
    both = [evaluate(which, cache, held_out_by=fitted) for which in (fitted, other)]
    means = [float(np.mean([head.kl for heads in one.lens.values() for head in heads])) for one in both]
    return {"kl": means[0], "kl_of_other_text": means[1], "shared_of_top_10": float(np.mean(shared)) * TOP}


def use(cache: Cache, fitted: Lenses, gains: dict[int, list[float]], num_sequences: int) -> dict[str, Any]:
    """KL(model, model with the head's z at its mean), nats a position, beside the lens's gain."""
    reader = LensedModel(fitted)
    where = np.unique(cache.read_shard("rows/sequence", fitted.record.cache["held_out_shards"][0]))[
        :num_sequences
    ]
    tokens_BT = torch.from_numpy(cache.tokens[where].astype(np.int64))
    fits = fitted.record.lenses
    mean_LHE = torch.from_numpy(moments.of_cache(cache, fits.layers, cache.shards).mean_LHE).float()
    clean_BTV = reader.log_probs(run_edited(reader.model, tokens_BT, []))
    records = []
    for index, (layer, heads) in enumerate(fits.by_layer.items()):
        for h, head in enumerate(heads):
            mean_E = mean_LHE[index, head]
            edit = Edit(layer=layer, head=head, z=mean_E.expand_as)
            kl = 0.0
            without_BTD = run_edited(reader.model, tokens_BT, [edit])
            for b in range(len(tokens_BT)):
                changed_1TV = reader.log_probs(without_BTD[b : b + 1])
                kl += float((clean_BTV[b].exp() * (clean_BTV[b] - changed_1TV[0])).sum(-1)[1:].mean())
            records.append(
                {"layer": layer, "head": head, "gain": gains[layer][h], "ablation_kl": kl / len(tokens_BT)}
            )
    rank = spearmanr([r["gain"] for r in records], [r["ablation_kl"] for r in records])
    return {
        "sequences": len(tokens_BT),
        "spearman": float(rank.statistic),
        "p_value": float(rank.pvalue),
        "heads": records,
    }


if __name__ == "__main__":
    main()
