"""How often a direction, added at a head, raises its token more than random directions of the same norm do.

In: lenses with E[z], effect lenses of the same model, a text. Out, as Markdown: for each direction and strength, the share of
pairs of a head and a token whose token becomes more probable than with random directions, with a 95 % interval over heads.

Heads: one of each layer, drawn, up to `--heads`, evenly over the layers. Tokens: words with a space before them, drawn among
the 2,000 most probable ones of the mean output without the 50 first. A direction is added at all positions of short windows
of the text; the gain of a token is that of its log-probability at the last position, mean over windows; it succeeds where it
is above the mean gain of five random directions. `random` is a sixth such direction. With `--part I/N` a part of the
heads alone. Norms are strengths times the root mean
square norm of the head's output over other windows, as `alens inject` has it.

    python benchmarks/injection_success.py LENSES EFFECT-LENSES TEXT [--model MODEL] [--heads 20] [--tokens 10] [--part 0/4]
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from alens import load_lenses
from alens.heads import Head
from alens.lens.effect_lenses import load_effect_lenses
from alens.machine.allotment import follow_allotment
from alens.model.edited_runs import EditedRuns
from alens.model.edits import Edit
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.studies.injection.directions import at_random
from alens.studies.injection.inject import directions, output_matrix
from alens.studies.injection.perplexity import read_windows
from alens.studies.injection.settings import InjectSettings
from alens.studies.injection.typical import typical
from alens.text.corpus import CorpusOptions, resolve

STRENGTHS = (1.0, 2.0)
RANDOM = 5
"""Random directions that others are compared with."""

USUAL_TOKENS, JUDGED_WINDOWS, JUDGED_TOKENS = 512, 1, 10
"""Tokens for the heads' usual output, and windows behind them on which gains are measured."""

COMMON, WORDS = 50, 2000

RESAMPLES = 2000

Wins = dict[str, dict[float, npt.NDArray[np.bool_]]]
"""By direction and strength, (heads, tokens): whether it succeeds."""


class Measurer:
    """Gains of many additions at one head, in one batch."""

    def __init__(self, reader: LensedModel, windows_BT: torch.Tensor, layer: int) -> None:
        self.reader, self.windows_BT, self.layer = reader, windows_BT, layer
        self.clean_BV = self._last(EditedRuns(reader.model, [windows_BT], []).clean[0].final_BTD)

    def gains(self, added_CD: torch.Tensor) -> torch.Tensor:
        """(C, V) gain of every log-probability, mean over windows, by what is added."""
        copies = len(self.windows_BT)
        tokens_NT = self.windows_BT.repeat(len(added_CD), 1)
        added_N1D = added_CD.repeat_interleave(copies, 0)[:, None]
        runs = EditedRuns(self.reader.model, [tokens_NT], [self.layer], quick=True)
        (final_NTD,) = runs.under([Edit(layer=self.layer, output=lambda out_NTD: out_NTD + added_N1D)])
        gain_CBV = self._last(final_NTD).view(len(added_CD), copies, -1) - self.clean_BV
        return gain_CBV.mean(1)

    def _last(self, final_NTD: torch.Tensor) -> torch.Tensor:
        return self.reader.log_probs(final_NTD[:, -1:])[:, 0]


def words(reader: LensedModel, number: int, random: np.random.Generator) -> list[Term]:
    """Tokens to raise."""
    assert reader.log_mean_V is not None
    frequent = reader.log_mean_V.argsort(descending=True)[COMMON : COMMON + WORDS].tolist()
    whole = [token for token in frequent if (text := reader.text(token))[0] == " " and text[1:].isalpha()]
    return [
        Term(text=reader.text(token), ids=(token,)) for token in random.choice(whole, number, replace=False)
    ]


def measure(
    reader: LensedModel,
    windows_BT: torch.Tensor,
    usual: Sequence[torch.Tensor],
    heads: Sequence[Head],
    terms: Sequence[Term],
) -> Wins:
    """Add every direction of every head and token."""
    wins: dict[str, dict[float, list[list[bool]]]] = defaultdict(lambda: defaultdict(list))
    layers = list(dict.fromkeys(layer for layer, _ in heads))
    statistics = typical(reader.model, usual, layers)
    for number, (layer, head) in enumerate(heads):
        settings = InjectSettings(layer=layer, head=head, by="all", random=0)
        here, measurer = statistics[layer, head], Measurer(reader, windows_BT, layer)
        drawn = at_random(
            output_matrix(reader, settings),
            reader.model.W_U_DV.shape[0],
            RANDOM + 1,
            number,
            reader.model.device,
        )
        by_term = [directions(reader, [term], settings, here) for term in terms]
        for strength in STRENGTHS:
            unit = strength * here.output_norm
            chance_CV = measurer.gains(unit * torch.stack(drawn))
            ids = [term.token for term in terms]
            level_W, own_W = chance_CV[:RANDOM].mean(0)[ids], chance_CV[RANDOM][ids]
            wins["random"][strength].append((own_W > level_W).tolist())
            for name in by_term[0]:
                gain_WV = measurer.gains(unit * torch.stack([one[name] for one in by_term]))
                gain_W = gain_WV[torch.arange(len(ids)), ids]
                wins[name][strength].append((gain_W > level_W).tolist())
        print(
            f"{layer}.{head}",
            {name: [float(np.mean(by[s][-1])) for s in STRENGTHS] for name, by in wins.items()},
            flush=True,
        )
    return {name: {s: np.array(rows) for s, rows in by.items()} for name, by in wins.items()}


def share(wins_HW: npt.NDArray[np.bool_]) -> str:
    """The share of pairs, and its interval over heads."""
    by_head_H = wins_HW.mean(1)
    drawn = np.random.default_rng(0).integers(len(by_head_H), size=(RESAMPLES, len(by_head_H)))
    low, high = np.quantile(by_head_H[drawn].mean(1), (0.025, 0.975))
    return f"{100 * by_head_H.mean():.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lenses", type=Path)
    parser.add_argument("effect_lenses", type=Path)
    parser.add_argument("text")
    parser.add_argument("--model")
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=10)
    parser.add_argument("--part", default="0/1", help="the I-th of N parts of the heads")
    given = parser.parse_args()
    follow_allotment()
    effect = load_effect_lenses(given.effect_lenses)
    reader = LensedModel(load_lenses(given.lenses), model=given.model, effect=effect, device="cpu")
    random = np.random.default_rng(0)
    by_layer = [
        (layer, numbers[int(random.integers(len(numbers)))])
        for layer, numbers in reader.lenses.record.lenses.by_layer.items()
    ]
    heads = [
        by_layer[int(place)]
        for place in np.linspace(0, len(by_layer) - 1, min(given.heads, len(by_layer))).round()
    ]
    part, num_parts = map(int, given.part.split("/"))
    heads = heads[part::num_parts]
    wanted = USUAL_TOKENS + JUDGED_WINDOWS * JUDGED_TOKENS
    (tokens_1T,) = read_windows(resolve(given.text, CorpusOptions()), reader.model, wanted).batches[:1]
    windows_BT = tokens_1T[0, USUAL_TOKENS:wanted].view(JUDGED_WINDOWS, JUDGED_TOKENS)
    wins = measure(
        reader, windows_BT, [tokens_1T[:, :USUAL_TOKENS]], heads, words(reader, given.tokens, random)
    )
    third = len(heads) // 3
    print(
        f"\n| direction | strength | all {len(heads)} heads | lower third | middle | upper third |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, by_strength in wins.items():
        for strength, wins_HW in by_strength.items():
            parts = [wins_HW, wins_HW[:third], wins_HW[third:-third], wins_HW[-third:]]
            print(f"| {name} | {strength:g} | {' | '.join(map(share, parts))} |")


if __name__ == "__main__":
    main()
