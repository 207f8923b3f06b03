"""Which reading of `alens locate` puts the heads first that move an answer: places of heads that ablation finds.

In: lenses with E[z], effect lenses of the same model. Out, as Markdown: for prompts with a target and a foil (indirect objects and
capitals of `real/known_answers.py`), the heads whose absence lowers or raises the logit of the target above the foil most, and
the mean place that each reading gives them among all heads; of movers from above, of suppressors from below. Places of Head
Pursuit, which has no sign, are from above for both. Intervals are over prompts drawn again.

Heads are ablated (z set to E[z] at every position) from a layer up, `--from`; heads below are ranked, and not ablated.

    python benchmarks/located_heads.py LENSES EFFECT-LENSES [--model MODEL] [--prompts 12] [--from 16]
        [--kinds "indirect object,capital"] [--store STORE]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from known import ablation
from real.known_answers import questions

from alens import load_lenses
from alens.heads import Head
from alens.lens.effect_lenses import load_effect_lenses
from alens.machine.allotment import follow_allotment
from alens.model.partial_pass import clean_pass
from alens.reading.lensed_model import LensedModel
from alens.rows.row_scales import RowScales
from alens.statistics.bootstrap import Array
from alens.studies.location.pursuit import shares

KINDS = ("indirect object", "capital")
FIRST = 5
RESAMPLES = 200
READINGS = ("lens", "written", "effect", "unembedding", "pursuit")


class Asked:
    """The prompts of one kind, with what every reading says of target less foil: (P,) by reading and head."""

    def __init__(self, reader: LensedModel, kind: str, most: int) -> None:
        self.reader = reader
        tokenizer = reader.model.tokenizer
        self.ids: list[list[int]] = []
        self.words: list[list[int]] = []
        for one in [one for one in questions() if one.kind == kind]:
            words = [tokenizer.encode(text, add_special_tokens=False).ids for text in (one.answer, one.foil)]
            if all(len(ids) == 1 for ids in words) and len(self.ids) < most:
                self.ids.append(reader.tokens(one.prompt))
                self.words.append([ids[0] for ids in words])
        self.layers = list(reader.lenses.record.layers)
        self.runs = [reader.run(ids, self.layers) for ids in self.ids]
        self.own_P = np.array(
            [self._gap(run.final_BTD[:, -1], words) for run, words in zip(self.runs, self.words, strict=True)]
        )

    def _gap(self, final_1D: torch.Tensor, words: Sequence[int]) -> float:
        target, foil = (final_1D @ self.reader.model.W_U_DV[:, list(words)])[0].tolist()
        return float(target - foil)

    def said(self) -> dict[str, dict[Head, Array]]:
        """By reading, then by head."""
        said: dict[str, dict[Head, Array]] = {name: {} for name in READINGS}
        assert self.reader.log_mean_V is not None and self.reader.effect is not None
        mean_P = np.array(
            [float(self.reader.log_mean_V[a] - self.reader.log_mean_V[b]) for a, b in self.words]
        )
        groups = [sorted({words[place] for words in self.words}) for place in (0, 1)]
        for layer, heads in self.reader.lenses.record.lenses.by_layer.items():
            z_HPE = torch.cat([self.reader.values(run, layer, heads)[:, -1:] for run in self.runs], 1)
            scale_P = RowScales.cat([self.reader.scale(run)[-1:] for run in self.runs])
            written_HPD = self.reader.writes.final(layer, heads, z_HPE, scale_P)
            effect_HPD = self.reader.effect.final(layer, heads, z_HPE)
            distinct = sorted({token for words in self.words for token in words})
            place = [[distinct.index(token) for token in words] for words in self.words]
            lens_HPC = self.reader.lens_logits(layer, heads, z_HPE, distinct)
            plain_HPC = self.reader.unembedding_logits(layer, heads, z_HPE, scale_P, distinct)
            W_U_DV = self.reader.model.W_U_DV
            parts = {
                "lens": lens_HPC,
                "unembedding": plain_HPC,
                "written": written_HPD @ W_U_DV[:, distinct],
                "effect": effect_HPD @ W_U_DV[:, distinct],
            }
            for h, head in enumerate(heads):
                for name, logits_HPC in parts.items():
                    gap_P = np.array(
                        [float(row[a] - row[b]) for row, (a, b) in zip(logits_HPC[h], place, strict=True)]
                    )
                    said[name][layer, head] = gap_P - mean_P if name == "lens" else gap_P
                by_group_PG, chance_P = shares(written_HPD[h], W_U_DV, groups, 0)
                said["pursuit"][layer, head] = by_group_PG.sum(1) - chance_P
        return said

    def lost(self, first: int) -> dict[Head, Array]:
        """What target less foil loses without each head from layer `first` on, prompt by prompt."""
        lost: dict[Head, list[float]] = {}
        for ids, words, own in zip(self.ids, self.words, self.own_P, strict=True):
            layers = [layer for layer in self.layers if layer >= first]
            clean = clean_pass(self.reader.model, torch.tensor([ids]), layers)
            for layer in layers:
                assert self.reader.effect is not None
                _, mean_HE = self.reader.effect.maps(layer, self.reader.lenses.record.lenses.by_layer[layer])
                for copies, final_CD in ablation.last_without_each(self.reader.model, clean, layer, mean_HE):
                    for (place, _), final_D in zip(copies, final_CD, strict=True):
                        head = layer, self.reader.lenses.record.lenses.by_layer[layer][place]
                        lost.setdefault(head, []).append(own - self._gap(final_D[None], words))
        return {head: np.array(values) for head, values in lost.items()}


def places(
    said: dict[Head, Array], heads: Sequence[Head], drawn_P: npt.NDArray[np.int64], *, below: bool
) -> float:
    """The mean place of `heads` by their mean over some prompts."""
    means = {head: float(values[drawn_P].mean()) for head, values in said.items()}
    ranked = sorted(means, key=lambda head: means[head] if below else -means[head])
    return float(np.mean([ranked.index(head) + 1 for head in heads]))


def cell(name: str, said: dict[Head, Array], heads: Sequence[Head], *, suppressors: bool) -> str:
    """The mean place by a reading, and its interval over prompts."""
    below = suppressors and name != "pursuit"
    num = len(next(iter(said.values())))
    random = np.random.default_rng(0)
    drawn = [places(said, heads, random.integers(num, size=num), below=below) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{places(said, heads, np.arange(num), below=below):.0f} ({low:.0f} to {high:.0f})"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lenses", type=Path)
    parser.add_argument("effect_lenses", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--store", type=Path, help="the cache of the fit, where the lenses do not hold E[z]")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--from", dest="first", type=int, default=16)
    given = parser.parse_args()
    follow_allotment()
    reader = LensedModel(
        load_lenses(given.lenses),
        model=given.model,
        store=given.store,
        effect=load_effect_lenses(given.effect_lenses),
        device="cpu",
    )
    for kind in given.kinds.split(","):
        with torch.inference_mode():
            asked = Asked(reader, kind, given.prompts)
            right = f"the model prefers the target in {(asked.own_P > 0).sum()}, by {asked.own_P.mean():.2f} logits"
            print(f"\n## {kind}: {len(asked.ids)} prompts, {right}", flush=True)
            said = asked.said()
            lost = asked.lost(given.first)
        ranked = sorted(lost, key=lambda head: -lost[head].mean())
        movers, suppressors = ranked[:FIRST], ranked[: -FIRST - 1 : -1]
        for name, heads in (("movers", movers), ("suppressors", suppressors)):
            print(
                f"{name}: "
                + ", ".join(f"{layer}.{head} {lost[layer, head].mean():+.2f}" for layer, head in heads)
            )
        print(
            f"\n| reading | place of {FIRST} movers, of {len(said['lens'])} | of {FIRST} suppressors |\n| --- | --- | --- |"
        )
        for name in READINGS:
            cells = [
                cell(name, said[name], heads, suppressors=heads is suppressors)
                for heads in (movers, suppressors)
            ]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
