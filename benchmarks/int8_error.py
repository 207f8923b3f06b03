"""What int8 does to z of each head, and to the KL of its closed form; do attention sinks suffer?

In: a cache with z in float16 and the exact teacher, and perhaps a second one of other text to judge on (default: a cache of
the demo is made, and judged on its held-out shards). Out, as Markdown, by head: the share of attention that goes to the first
token; the error of z as int8, beside z and beside its spread around its mean; held-out KL of the closed form in nats where z
is read as stored, and what is added where it is read as int8, with one standard error over rows. Below it, rank correlations
over heads.

    python benchmarks/int8_error.py [--store STORE] [--judge STORE] [--heads 0.6,18.8] [--rows 1024] [--sequences 8]
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from alens import CacheRequest, open_cache, write_cache
from alens.heads import Heads, requested
from alens.lens.closed_form import closed_form
from alens.lens.whitening import Whitening
from alens.machine.allotment import follow_allotment
from alens.machine.blocks import row_blocks
from alens.model import models
from alens.model.activations import run_hooked
from alens.rows import moments
from alens.statistics.divergences import kl_between_log_probs
from alens.store import encoding
from alens.store.cache_reader import Cache, log_shares
from alens.store.schema import CacheSettings

DEMO = CacheSettings(max_rows=32_768, rows_per_shard=4096, exact_teacher=True)

Figures = dict[tuple[int, int], float]
"""By layer and head."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path)
    parser.add_argument("--judge", type=Path, help="a cache of other text; default: the last shard of STORE")
    parser.add_argument("--heads", help="heads whose KL is measured; all by default")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--sequences", type=int, default=8, help="how many show where heads look")
    asked = parser.parse_args()
    follow_allotment()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        store = asked.store or made(Path(folder) / "cache")
        cache = open_cache(store)
        other = cache if asked.judge is None else open_cache(asked.judge)
        train, judged = (
            (cache.shards, other.shards) if asked.judge else (cache.shards[:-1], cache.shards[-1:])
        )
        row_N = rows(other, judged, asked.rows)
        there = Heads.grid(cache.plan.layers, range(cache.plan.model.n_heads))
        heads = requested(None, asked.heads, there).ordered()
        beside_z, beside_spread = errors(other, row_N)
        looks, costs = first_token(other, asked.sequences), cost(cache, train, other, row_N, heads)
    print(
        "| head | first token | error, % of z | % of its spread | KL | as int8 |\n| --- "
        + "| ---: " * 5
        + "|"
    )
    for head in sorted(heads, key=lambda head: -costs[head][1]):
        kl, more, standard_error = costs[head]
        print(
            f"| {head[0]}.{head[1]} | {looks[head]:.2f} | {100 * beside_z[head]:.2f} | {100 * beside_spread[head]:.2f} "
            f"| {kl:.4f} | {more:+.5f} ± {standard_error:.5f} |"
        )
    sinks = [head for head in there if looks[head] > 0.5]
    print(f"\n{len(sinks)} of {len(there)} heads give the first token more than half of their attention.")
    for name, figures in (("% of z", beside_z), ("% of its spread", beside_spread)):
        means = [
            f"{100 * float(np.mean([figures[head] for head in some])):.2f} in the {which}"
            for which, some in (("sinks", sinks), ("others", [head for head in there if head not in sinks]))
            if some
        ]
        order = spearmanr(list(looks.values()), [figures[head] for head in looks]).statistic
        print(f"Mean error in {name}: {', '.join(means)}; rank correlation with the share {order:.2f}.")


def made(store: Path) -> Path:
    """A cache of the demo."""
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=DEMO))
    return store


def rows(cache: Cache, shards: tuple[int, ...], count: int) -> npt.NDArray[np.int64]:
    """Numbers of rows at position 1 and later, at random, sorted."""
    size = cache.plan.settings.rows_per_shard
    usable = [np.flatnonzero(cache.read_shard("rows/position", s) >= 1) + s * size for s in shards]
    row_N = np.concatenate(usable)
    chosen = np.random.default_rng(0).choice(row_N, min(count, len(row_N)), replace=False)
    return np.sort(chosen)


def as_int8(z_NHE: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """What a cache with `--z-dtype int8` would give back."""
    return encoding.dequantise(*encoding.quantise(z_NHE))


def errors(cache: Cache, row_N: npt.NDArray[np.int64]) -> tuple[Figures, Figures]:
    """The root mean square of the error beside that of z, and beside that of z around its mean."""
    beside_z, beside_spread = Figures(), Figures()
    for layer in cache.plan.layers:
        stored = cache.z(layer, row_N)
        z_NHE = stored.astype(np.float64)
        error_H = np.square(as_int8(stored) - z_NHE).sum((0, 2))
        whole_H, spread_H = (np.square(z_NHE - mean).sum((0, 2)) for mean in (0.0, z_NHE.mean(0)))
        for head, (error, whole, spread) in enumerate(zip(error_H, whole_H, spread_H, strict=True)):
            beside_z[layer, head] = float(np.sqrt(error / max(whole, 1e-30)))
            beside_spread[layer, head] = float(np.sqrt(error / max(spread, 1e-30)))
    return beside_z, beside_spread


def first_token(cache: Cache, sequences: int) -> Figures:
    """The mean share of attention that positions after the first give to it."""
    plan, shares = cache.plan, Figures()
    source = models.find_again(plan.model, cache.root)
    model = models.load(source, dtype=plan.settings.dtype, device="cpu")
    tokens_BT = torch.from_numpy(cache.tokens[:sequences].astype(np.int64))

    def keep(layer: int) -> Callable[..., None]:
        def hook(pattern_BHTS: torch.Tensor, hook: object) -> None:
            for head, share in enumerate(pattern_BHTS[:, :, 1:, 0].mean((0, 2)).tolist()):
                shares[layer, head] = share

        return hook

    run_hooked(
        model, tokens_BT, [(f"blocks.{layer}.attn.hook_pattern", keep(layer)) for layer in plan.layers]
    )
    return shares


def cost(
    cache: Cache, train: tuple[int, ...], other: Cache, row_N: npt.NDArray[np.int64], heads: Heads
) -> dict[tuple[int, int], tuple[float, float, float]]:
    """KL of the closed form on rows as stored, what int8 adds, and the standard error of that."""
    closed = closed_form(cache, heads, train)
    log_mean_V = torch.from_numpy(
        log_shares(moments.of_cache(cache, heads.layers, train).mean_output_V)
    ).float()
    W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).float() for name in ("W_U", "b_U"))
    final_ND = torch.from_numpy(other.read("targets/final", row_N)).float()
    costs = {}
    for layer, numbers in heads.by_layer.items():
        of_layer, z_NHE = closed[layer], other.z(layer, row_N)
        whitening = Whitening.from_moments(of_layer.mean_HE, of_layer.covariance_HEE)
        weight_HEV, bias_HV = of_layer.affine(W_U_DV, log_mean_V, whitening)
        forms = [torch.from_numpy(form[:, list(numbers)]) for form in (z_NHE, as_int8(z_NHE))]
        white = [whitening.white(form) for form in forms]
        kl_2HN = torch.zeros(2, len(numbers), len(row_N))
        for block in row_blocks(len(row_N), W_U_DV.device):
            log_p_NV = torch.addmm(b_U_V, final_ND[block], W_U_DV).log_softmax(-1)
            for place in range(len(numbers)):
                for form, white_HNE in enumerate(white):
                    said_NV = torch.addmm(bias_HV[place], white_HNE[place, block], weight_HEV[place])
                    kl_2HN[form, place, block] = kl_between_log_probs(log_p_NV, said_NV.log_softmax(-1))
        more_HN = (kl_2HN[1] - kl_2HN[0]).double()
        for place, head in enumerate(numbers):
            costs[layer, head] = (
                float(kl_2HN[0, place].mean()),
                float(more_HN[place].mean()),
                float(more_HN[place].std() / len(row_N) ** 0.5),
            )
    return costs


if __name__ == "__main__":
    main()
