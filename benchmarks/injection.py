"""Which direction raises a token more when it is added at a head: the lens's, the unembedding's, or a random one.

In: lenses (default: fitted here, on the demo). Out, as one JSON document: over random pairs of a head and a token, the
gain in the token's log-probability (nats, mean over the positions of held-out windows) of each direction at one norm,
how often one gains more than another, what each costs on the text (nats a token), and the cost at equal gain.

Tokens are drawn by the model's mean output, heads evenly over those that were fitted. Directions: `lens` (gradient),
`lens covariance`, `written`, `effect` (with effect lenses), `unembedding`, `unembedding within the head`, `random` (within
the head). Norms are strengths times the root mean square norm of the head's output. Intervals hold 95 % over pairs.

    python benchmarks/injection.py [LENSES TEXT] [--effect-lenses LENSES] [--pairs 200] [--strength 2]
        [--window TOKENS] [--judged-windows 4] [--one-dose]
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens import CacheRequest, FitRequest, fit_lenses, load_lenses, write_cache
from alens.fit.settings import FitSettings
from alens.lens.effect_lenses import load_effect_lenses
from alens.lens.lenses import Lenses
from alens.machine.allotment import follow_allotment
from alens.model.edits import run_edited
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.store.schema import CacheSettings
from alens.studies.injection.directions import at_random, by_effect, by_lens, by_unembedding, by_written
from alens.studies.injection.inject import addition
from alens.studies.injection.perplexity import cut, read_windows
from alens.studies.injection.settings import InjectSettings
from alens.studies.injection.typical import Typical, typical
from alens.text.corpus import CorpusOptions, resolve

USUAL_WINDOWS = 16
"""Windows of the text for the heads' usual output; gains are measured on others."""

JUDGED_TOKENS = 64
"""Tokens of a judged window."""

DOSES = (0.5, 1.0, 2.0, 4.0)
"""Times `--strength`: where the cost at equal gain is looked for. `--one-dose` takes 1.0 alone."""

STRETCHES = 4
"""Parts of the layers that have figures of their own."""

EQUAL_GAIN = 0.5
"""Nats: the gain at which costs are compared."""

Array = npt.NDArray[np.float64]


class Judge:
    """Gain and cost of additions, on held-out windows."""

    def __init__(self, reader: LensedModel, tokens_BT: torch.Tensor) -> None:
        self.reader, self.tokens_BT = reader, tokens_BT
        self.clean_BTV = reader.log_probs(run_edited(reader.model, tokens_BT, []))
        self.clean_nats = self._nats(self.clean_BTV)

    def _nats(self, log_probs_BTV: torch.Tensor) -> float:
        next_BT = self.tokens_BT[:, 1:, None].to(log_probs_BTV.device)
        return -float(log_probs_BTV[:, :-1].gather(2, next_BT).mean())

    def added(self, settings: InjectSettings, added_D: torch.Tensor, token: int) -> tuple[float, float]:
        """(gain of the token's log-probability, cost in nats a token)."""
        final_BTD = run_edited(self.reader.model, self.tokens_BT, [addition(settings, added_D, "all")])
        log_probs_BTV = self.reader.log_probs(final_BTD)
        gain = float((log_probs_BTV[..., token] - self.clean_BTV[..., token]).mean())
        return gain, self._nats(log_probs_BTV) - self.clean_nats


def directions(
    reader: LensedModel, settings: InjectSettings, here: Typical, token: int, seed: int
) -> dict[str, torch.Tensor]:
    """Unit vectors (D,) by name."""
    layer, head = settings.layer, settings.head
    model, terms = reader.model, [Term(text="", ids=(token,))]
    assert head is not None
    maps = reader.lenses.layer(layer).maps.select([reader.lenses.place(layer, head)])
    W_O_ED = model.W_O_LHED[layer, head].float()
    effect = {}
    if reader.effect is not None and reader.effect.has(layer, head):
        effect_HED, _ = reader.effect.maps(layer, [head])
        effect["effect"] = by_effect(model, effect_HED[0], W_O_ED, terms)
    return {
        "lens": by_lens(maps, W_O_ED, here, terms, "gradient"),
        "lens covariance": by_lens(maps, W_O_ED, here, terms, "covariance"),
        "written": by_written(model, W_O_ED, terms),
        **effect,
        "unembedding": by_unembedding(model, None, here, terms),
        "unembedding within the head": by_unembedding(model, W_O_ED, here, terms),
        "random": at_random(W_O_ED, model.W_U_DV.shape[0], 1, seed, model.device)[0],
    }


def measure(
    reader: LensedModel,
    text: str,
    pairs: int,
    strength: float,
    *,
    window: int | None,
    judged: int,
    doses: Sequence[float] = DOSES,
) -> dict[str, Any]:
    """All figures."""
    lenses = reader.lenses
    width = window or lenses.record.model.n_ctx
    windows = read_windows(resolve(text, CorpusOptions()), reader.model, (USUAL_WINDOWS + judged) * width)
    tokens = torch.cat([batch.flatten() for batch in windows.batches])
    sequences_BT = torch.cat([batch for batch in cut(tokens, width) if batch.shape[1] == width])
    usual = typical(reader.model, sequences_BT[:USUAL_WINDOWS].split(2), list(lenses.record.layers))
    judge = Judge(reader, sequences_BT[USUAL_WINDOWS:, :JUDGED_TOKENS])
    log_mean_V = lenses.log_mean_output()
    assert log_mean_V is not None
    shares_V = log_mean_V.double().exp().numpy()
    random = np.random.default_rng(0)
    rows: list[tuple[int, dict[str, list[tuple[float, float]]]]] = []
    for number in range(pairs):
        layer, head = lenses.record.lenses.pairs[int(random.integers(len(lenses.record.lenses)))]
        token = int(random.choice(len(shares_V), p=shares_V / shares_V.sum()))
        settings, here = InjectSettings(layer=layer, head=head), usual[layer, head]
        by_name = directions(reader, settings, here, token, number)
        rows.append(
            (
                layer,
                {
                    name: [
                        judge.added(settings, dose * strength * here.output_norm * d, token) for dose in doses
                    ]
                    for name, d in by_name.items()
                },
            )
        )
    return {
        "pairs": pairs,
        "strength": strength,
        "judged_tokens": judge.tokens_BT.numel(),
        "clean_nats": round(judge.clean_nats, 4),
        "all": figures([row for _, row in rows], doses),
        "by_layers": {
            f"{layers[0]} to {layers[-1]}": figures([row for at, row in rows if at in layers], doses)
            for layers in np.array_split(lenses.record.layers, min(STRETCHES, len(lenses.record.layers)))
            if any(at in layers for at, _ in rows)
        },
    }


def figures(rows: list[dict[str, list[tuple[float, float]]]], doses: Sequence[float]) -> dict[str, Any]:
    """Means over pairs, shares of pairs, and the cost at equal gain where a direction gets there."""
    at = doses.index(1.0)
    gains = {name: np.array([row[name][at][0] for row in rows]) for name in rows[0]}
    costs = {name: np.array([row[name][at][1] for row in rows]) for name in rows[0]}
    reached = {name: np.array([cost_at(row[name], EQUAL_GAIN) for row in rows]) for name in rows[0]}
    return {
        "pairs": len(rows),
        "directions": {
            name: {
                "gain_mean": _rounded(gains[name].mean()),
                "gain_interval": _interval(gains[name]),
                "gain_median": _rounded(np.median(gains[name])),
                "cost_mean": _rounded(costs[name].mean()),
                "cost_interval": _interval(costs[name]),
                "beats_random": _share(gains[name] > gains["random"]),
                "beats_unembedding": _share(gains[name] > gains["unembedding"]),
                f"reaches_{EQUAL_GAIN}_nats": _share(np.isfinite(reached[name])),
                "cost_there_median": _rounded(np.median(there)) if len(there) else None,
            }
            for name in rows[0]
            for there in [reached[name][np.isfinite(reached[name])]]
        },
        "beats": {
            "lens over unembedding within the head": _share(
                gains["lens"] > gains["unembedding within the head"]
            ),
            "covariance over gradient": _share(gains["lens covariance"] > gains["lens"]),
        },
    }


def cost_at(curve: list[tuple[float, float]], gain: float) -> float:
    """The cost where the gain is reached first, between doses by a straight line from (0, 0); nan if never."""
    before = (0.0, 0.0)
    for point in curve:
        if point[0] >= gain:
            part = (gain - before[0]) / (point[0] - before[0])
            return before[1] + part * (point[1] - before[1])
        before = point
    return float("nan")


def _interval(values: Array) -> list[float]:
    """95 % of the mean, by drawing pairs again."""
    drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    return [_rounded(end) for end in np.quantile(values[drawn].mean(1), (0.025, 0.975))]


def _share(which: npt.NDArray[np.bool_]) -> float:
    return round(float(which.mean()), 3)


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def demo_lenses(work: Path) -> Lenses:
    """Lenses of the bundled model."""
    settings = CacheSettings(max_rows=32_768, rows_per_shard=4096, exact_teacher=True)
    store, lenses = work / "cache", work / "lenses"
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu"))
    fit_lenses(
        FitRequest(
            store=store, lenses=lenses, settings=FitSettings(eval_rows=4096, batch_rows=512), device="cpu"
        )
    )
    return load_lenses(lenses)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lenses", type=Path, nargs="?")
    parser.add_argument("text", nargs="?", default="demo")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--strength", type=float, default=2.0)
    parser.add_argument("--effect-lenses", type=Path)
    parser.add_argument("--window", type=int, help="tokens of a window; the model's context by default")
    parser.add_argument("--judged-windows", type=int, default=4)
    parser.add_argument("--one-dose", action="store_true", help="one norm alone, which is quicker")
    given = parser.parse_args()
    follow_allotment()
    effect = None if given.effect_lenses is None else load_effect_lenses(given.effect_lenses)
    with tempfile.TemporaryDirectory() as work:
        lenses = load_lenses(given.lenses) if given.lenses else demo_lenses(Path(work))
        reader = LensedModel(lenses, effect=effect, device="cpu")
        figures_of_all = measure(
            reader,
            given.text,
            given.pairs,
            given.strength,
            window=given.window,
            judged=given.judged_windows,
            doses=(1.0,) if given.one_dose else DOSES,
        )
        print(json.dumps(figures_of_all, indent=1))


if __name__ == "__main__":
    main()
