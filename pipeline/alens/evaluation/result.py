"""What `alens eval` finds: figures of lenses and baselines, comparisons, and a summary, as plain values too.

In: nothing; `evaluate` fills it. Out: `Evaluation`, and from it the document of `alens eval --json`.
"""

from dataclasses import dataclass
from typing import Any

from alens.evaluation.reading_figures import FIGURES, PairedDifference, ReadingFigures
from alens.result import Result, flat, plain
from alens.statistics.bootstrap import LEVEL


@dataclass(frozen=True, kw_only=True)
class BaselineComparison:
    """A lens less a baseline, on the same rows; negative where the lens is better."""

    kl: PairedDifference
    cross_entropy: PairedDifference | None
    """None where no row has a next token."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """A figure over all lenses."""

    mean: float
    lowest: float
    lowest_head: tuple[int, int]
    """(layer, head)."""
    highest: float
    highest_head: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Wins:
    """In how many heads the lens has a lower KL than a baseline."""

    heads: int
    better: int
    better_apart: int
    """And the intervals of the two do not overlap."""
    surely_better: int
    """And the interval of the paired difference lies below 0."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Result):
    """Figures by layer and head; every list of heads follows `heads`."""

    rows: int
    """Held-out rows judged on."""
    sequences: int
    """That they belong to."""
    intervals_over: str
    """What the bootstrap draws: `documents`, or `sequences` where documents are not known."""
    groups: int
    """How many of these there are."""
    teacher: str
    """`exact`, or `compressed`: then KL is an unbiased estimate."""
    shards: tuple[int, ...]
    trained_on: str
    """`no`, or `unknown`: rows may be among them that a fit was trained on."""
    sequences_left_out: int
    """Sequences that are not judged on because a fit was trained on them."""
    top_tokens: int
    """Of the second agreement: 10, or as many as the cache holds."""
    seed: int
    """Of the resamples."""
    resamples: int
    heads: tuple[int, ...]
    says_nothing: dict[int, list[bool]]
    """As `lens`: whether the fit found the lens to do no better than the mean output on the rows that it held out."""
    lens: dict[int, list[ReadingFigures]]
    unembedding: dict[int, list[ReadingFigures]]
    """Empty where what heads write cannot be unembedded."""
    mean_output: ReadingFigures
    logit_lens: dict[int, ReadingFigures]
    """By layer; empty where the cache has no `resid_post`."""
    tuned_lens: dict[int, ReadingFigures]
    """By layer; empty where none was given."""
    model: ReadingFigures | None
    """The model itself, no baseline; None without the exact teacher."""
    norm_is_the_models: bool
    """Else the Logit Lens has the bare norm, without gain and offset."""
    comparisons: dict[str, dict[int, list[BaselineComparison]]]
    """By baseline, `mean_output`, `unembedding`, `logit_lens` or `tuned_lens`; then as `lens`."""

    def ranges(self) -> dict[str, Range | None]:
        """Mean, lowest and highest of each figure over all lenses; None where a figure has no value."""
        return {name: self._range(name) for name in FIGURES}

    def wins(self, baseline: str) -> Wins:
        """Raises `KeyError` for a baseline that was not judged."""
        found = [of.kl for heads in self.comparisons[baseline].values() for of in heads]
        return Wins(
            heads=len(found),
            better=sum(of.difference < 0 for of in found),
            better_apart=sum(of.better_apart for of in found),
            surely_better=sum(of.surely_better for of in found),
        )

    def headline(self) -> str:
        """How many lenses, on how many rows, and how well they read."""
        lenses = sum(len(figures) for figures in self.lens.values())
        mean = sum(one.kl for figures in self.lens.values() for one in figures) / lenses
        return (
            f"{lenses} lenses of {len(self.lens)} layers on {self.rows:,} held-out rows, "
            f"mean KL {mean:.3f} nats, mean output {self.mean_output.kl:.3f}"
        )

    def records(self) -> list[dict[str, Any]]:
        """One record a head, with the names of the JSON document: `lens.kl`, `comparisons.mean_output.kl.difference`.

        Reliability bins, a table within each head, are left out.
        """
        flattened = [flat(head) for head in self.to_json()["heads"]]
        return [
            {name: value for name, value in head.items() if not name.endswith(".reliability")}
            for head in flattened
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values: one record a head and one a layer, and what is the same for all beside them."""
        return {
            "rows": self.rows,
            "sequences": self.sequences,
            "teacher": self.teacher,
            "shards": list(self.shards),
            "trained_on": self.trained_on,
            "sequences_left_out": self.sequences_left_out,
            "top_tokens": self.top_tokens,
            "intervals_over": self.intervals_over,
            "groups": self.groups,
            "bootstrap": {"level": LEVEL, "resamples": self.resamples, "seed": self.seed},
            "norm_is_the_models": self.norm_is_the_models,
            "summary": {
                "lenses": {name: plain(found) for name, found in self.ranges().items()},
                "wins": {baseline: plain(self.wins(baseline)) for baseline in self.comparisons},
            },
            "mean_output": plain(self.mean_output),
            "model": plain(self.model),
            "layers": [
                {
                    "layer": layer,
                    "logit_lens": plain(self.logit_lens.get(layer)),
                    "tuned_lens": plain(self.tuned_lens.get(layer)),
                }
                for layer in self.lens
            ],
            "heads": [
                {
                    "layer": layer,
                    "head": head,
                    "says_nothing": self.says_nothing[layer][index],
                    "lens": plain(self.lens[layer][index]),
                    "unembedding": plain(self.unembedding[layer][index] if self.unembedding else None),
                    "comparisons": {
                        baseline: plain(of[layer][index]) for baseline, of in self.comparisons.items()
                    },
                }
                for layer in self.lens
                for index, head in enumerate(self.heads)
            ],
        }

    def _range(self, name: str) -> Range | None:
        values: list[tuple[float, tuple[int, int]]] = []
        for layer, figures in self.lens.items():
            for head, of in zip(self.heads, figures, strict=True):
                value = getattr(of, name)
                if value is None:
                    return None
                values.append((value, (layer, head)))
        lowest, highest = min(values), max(values)
        return Range(
            mean=sum(value for value, _ in values) / len(values),
            lowest=lowest[0],
            lowest_head=lowest[1],
            highest=highest[0],
            highest_head=highest[1],
        )
