"""The result of `alens eval`: figures of lenses and baselines, comparisons, and a summary.

`evaluate` fills an `Evaluation`; its `to_json` is the document of `alens eval --json`.
"""

from dataclasses import dataclass
from typing import Any

from alens.evaluation.reading_figures import FIGURES, PairedDifference, ReadingFigures
from alens.heads import Heads
from alens.result import Result, flat, plain
from alens.statistics.bootstrap import LEVEL


@dataclass(frozen=True, kw_only=True)
class BaselineComparison:
    """The figures of a lens minus those of a baseline, on the same rows: negative where the lens is better."""

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
    """For how many heads the lens has a lower KL than a baseline."""

    heads: int
    better: int
    better_apart: int
    """The KL is lower, and the two intervals do not overlap."""
    surely_better: int
    """The KL is lower, and the interval of the paired difference lies below 0."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Result):
    """Figures by layer and head. Every list of heads is in the order of `heads`."""

    rows: int
    """How many held-out rows were judged on."""
    sequences: int
    """How many sequences these rows belong to."""
    intervals_over: str
    """What the bootstrap draws: `documents`, or `sequences` where documents are not known."""
    groups: int
    """How many documents, or sequences, there are."""
    teacher: str
    """`exact`, or `compressed`; then KL is an unbiased estimate."""
    shards: tuple[int, ...]
    trained_on: str
    """`no`, or `unknown`: some of the rows may be rows that a fit was trained on."""
    sequences_left_out: int
    """How many sequences were left out because a fit was trained on them."""
    top_tokens: int
    """How many tokens `top10_agreement` compares: 10, or as many as the cache holds."""
    seed: int
    """The seed of the resamples."""
    resamples: int
    heads: Heads
    says_nothing: dict[int, list[bool]]
    """By layer, one a head: whether the lens did no better than the mean output on the rows that its fit held out."""
    lens: dict[int, list[ReadingFigures]]
    unembedding: dict[int, list[ReadingFigures]]
    """Empty where what heads write cannot be unembedded."""
    mean_output: ReadingFigures
    logit_lens: dict[int, ReadingFigures]
    """By layer; empty where the cache has no `resid_post`."""
    tuned_lens: dict[int, ReadingFigures]
    """By layer; empty where none was given."""
    model: ReadingFigures | None
    """The model's own distribution, which is not a baseline; None without the exact teacher."""
    norm_is_the_models: bool
    """Whether the Logit Lens has the model's last norm; if not, it has the norm without gain and offset."""
    comparisons: dict[str, dict[int, list[BaselineComparison]]]
    """By baseline (`mean_output`, `unembedding`, `logit_lens`, `tuned_lens`) and layer, one a head."""

    def ranges(self) -> dict[str, Range | None]:
        """Mean, lowest and highest of each figure over all lenses; None where a figure has no value."""
        return {name: self._range(name) for name in FIGURES}

    def wins(self, baseline: str) -> Wins:
        """Over all lenses. Raises `KeyError` for a baseline that was not judged."""
        by_layer = self.comparisons[baseline].values()
        differences = [comparison.kl for comparisons in by_layer for comparison in comparisons]
        return Wins(
            heads=len(differences),
            better=sum(one.difference < 0 for one in differences),
            better_apart=sum(one.better_apart for one in differences),
            surely_better=sum(one.surely_better for one in differences),
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
        """Plain values: what holds for all, then one record a layer and one a head."""
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
                "lenses": {name: plain(over_lenses) for name, over_lenses in self.ranges().items()},
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
                        baseline: plain(by_layer[layer][index])
                        for baseline, by_layer in self.comparisons.items()
                    },
                }
                for layer, numbers in self.heads.by_layer.items()
                for index, head in enumerate(numbers)
            ],
        }

    def _range(self, name: str) -> Range | None:
        values: list[tuple[float, tuple[int, int]]] = []
        for layer, figures in self.lens.items():
            for head, of_head in zip(self.heads.by_layer[layer], figures, strict=True):
                value = getattr(of_head, name)
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
