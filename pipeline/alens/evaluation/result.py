"""The result of `alens eval`: figures of lenses and baselines, comparisons, and a summary.

`evaluate` fills an `Evaluation`; its `to_json` is the document of `alens eval --json`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alens.evaluation.judged_effects import JudgedEffects
from alens.evaluation.reading_figures import FIGURES, PairedDifference, ReadingFigures
from alens.heads import Heads
from alens.result import Result, flat, number_of, plain
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
    of_heads: dict[str, dict[int, list[ReadingFigures]]]
    """By reading (`lens`, `unembedding`, `scaled-write`, ...) and layer, one a head."""
    of_layers: dict[str, dict[int, ReadingFigures]]
    """By reading (`logit-lens` where the cache has `resid_post`, `tuned-lens`, `random`) and layer."""
    mean_output: ReadingFigures
    model: ReadingFigures | None
    """The model's own distribution, which is not a baseline; None without the exact teacher."""
    norm_is_the_models: bool
    """Whether the Logit Lens has the model's last norm; if not, it has the norm without gain and offset."""
    comparisons: dict[str, dict[int, list[BaselineComparison]]]
    """By baseline (`mean-output`, `unembedding`, ...) and layer, one a head."""
    effects: JudgedEffects | None = None
    """How readings agree with what the model loses without a head; None where the cache has no effects of these heads."""

    @property
    def lens(self) -> dict[int, list[ReadingFigures]]:
        """The figures of the lenses that are judged, by layer, one a head."""
        return self.of_heads["lens"]

    @property
    def unembedding(self) -> dict[int, list[ReadingFigures]]:
        """Those of the unembedding of each head; empty where what heads write cannot be unembedded."""
        return self.of_heads.get("unembedding", {})

    @property
    def logit_lens(self) -> dict[int, ReadingFigures]:
        """By layer; empty where the cache has no `resid_post`."""
        return self.of_layers.get("logit-lens", {})

    @property
    def tuned_lens(self) -> dict[int, ReadingFigures]:
        """By layer; empty where none was given."""
        return self.of_layers.get("tuned-lens", {})

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
            f"{number_of(lenses, 'lens', 'lenses')} of {number_of(len(self.lens), 'layer')} on {self.rows:,} held-out rows, "
            f"mean KL {mean:.3f} nats, mean output {self.mean_output.kl:.3f}"
        )

    def records(self) -> list[dict[str, Any]]:
        """One record a head and reading, with the names of the JSON document: `kl`, `lens_minus.kl.difference`.

        Reliability bins, a table within each reading, are left out.
        """
        flattened = [flat(reading) for reading in self._readings_of_heads()]
        return [
            {name: value for name, value in reading.items() if name != "reliability"} for reading in flattened
        ]

    def telling(self) -> list[dict[str, Any]]:
        """One row a lens, the lowest KL first, with the KL of the other readings of the same head."""
        rows: list[dict[str, Any]] = []
        for layer, numbers in self.heads.by_layer.items():
            for index, head in enumerate(numbers):
                own = self.lens[layer][index]
                others = {
                    f"{name}.kl": by_layer[layer][index].kl
                    for name, by_layer in self.of_heads.items()
                    if name != "lens"
                }
                low, high = own.intervals["kl"] or (None, None)
                rows.append(
                    {"layer": layer, "head": head, "says_nothing": self.says_nothing[layer][index]}
                    | {"kl": own.kl, "intervals.kl.low": low, "intervals.kl.high": high}
                    | {"mean-output.kl": self.mean_output.kl, **others, "top1_agreement": own.top1_agreement}
                )
        return sorted(rows, key=lambda row: row["kl"])

    def to_json(self) -> dict[str, Any]:
        """Plain values: what holds for all, then one record a reading: of no head, of a layer, of a head."""
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
            "effects": None if self.effects is None else _effects(self.effects),
            "readings": [
                _entry(None, None, "mean-output", self.mean_output),
                *([] if self.model is None else [_entry(None, None, "model", self.model)]),
                *(
                    _entry(layer, None, reading, figures)
                    for reading, by_layer in self.of_layers.items()
                    for layer, figures in by_layer.items()
                ),
                *self._readings_of_heads(),
            ],
        }

    def _readings_of_heads(self) -> Iterator[dict[str, Any]]:
        """For each head its readings, those that it shares with others too."""
        for layer, numbers in self.heads.by_layer.items():
            for index, head in enumerate(numbers):
                nothing = {"says_nothing": self.says_nothing[layer][index]}
                yield self._by_cause(_entry(layer, head, "lens", self.lens[layer][index]) | nothing)
                for baseline, by_layer in self.comparisons.items():
                    minus = {"lens_minus": plain(by_layer[layer][index])}
                    if baseline in self.of_heads:
                        own = self.of_heads[baseline][layer][index]
                        yield self._by_cause(_entry(layer, head, baseline, own) | minus)
                    else:
                        shared = (
                            self.of_layers[baseline][layer]
                            if baseline in self.of_layers
                            else self.mean_output
                        )
                        entry = _entry(layer, head, baseline, shared) | minus
                        del entry["reliability"]  # it stands once, without the head
                        yield entry

    def _by_cause(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The entry of a head's reading with its figures beside the effect, where there are some."""
        of_head = (
            {} if self.effects is None else self.effects.figures.get((entry["layer"], entry["head"]), {})
        )
        if (figures := of_head.get(entry["reading"])) is None:
            return entry
        beside: dict[str, Any] = plain(figures)
        entry["intervals"] |= beside.pop("intervals")
        return entry | beside

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


def _entry(layer: int | None, head: int | None, reading: str, figures: ReadingFigures) -> dict[str, Any]:
    """What the document says of one reading."""
    return {"layer": layer, "head": head, "reading": reading, **plain(figures)}


def _effects(effects: JudgedEffects) -> dict[str, Any]:
    """What the document says of effects themselves; the figures of readings stand with the readings."""
    return {
        "rows": effects.rows,
        "sign_rows": effects.sign_rows,
        "intervals_over": effects.intervals_over,
        "groups": effects.groups,
        "heads": [
            {"layer": layer, "head": head, **plain(effect)} for (layer, head), effect in effects.heads.items()
        ],
    }
