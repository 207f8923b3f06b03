"""The result of judging readings by cause: the effect of each head, and how each reading agrees with it.

In: sums of each head. Out: `JudgedEffects`, a part of the `Evaluation`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from alens.evaluation.effect_figures import (
    SIGN_ROWS,
    EffectFigures,
    EffectSize,
    effect_figures,
    head_effect,
)
from alens.evaluation.effect_judge import EffectJudge, HeadSums
from alens.heads import Head
from alens.statistics.groups import Groups


@dataclass(frozen=True, kw_only=True)
class JudgedEffects:
    """How readings agree with measured effects. Heads whose effects were not measured are left out."""

    rows: int
    """On how many rows of the judged text effects were measured."""
    sign_rows: int
    """On how many of these signs were compared."""
    intervals_over: str
    """What the bootstrap draws: `documents`, or `sequences` where documents are not known."""
    groups: int
    heads: dict[Head, EffectSize]
    """How large the effect of each head is."""
    figures: dict[Head, dict[str, EffectFigures]]
    """By head and reading (`lens`, `written`, ...). A reading that says nothing about what a head adds has none."""

    @classmethod
    def of_sums(
        cls, judge: EffectJudge, sums: Mapping[Head, HeadSums], vocabulary: int, seed: int, resamples: int
    ) -> Self:
        """The figures of sums over all groups of rows."""
        groups: Groups = judge.groups
        figures = {
            head: dict(
                zip(
                    of_head.readings,
                    effect_figures(of_head.sums_GQC, seed=seed, resamples=resamples),
                    strict=True,
                )
            )
            for head, of_head in sums.items()
        }
        return cls(
            rows=judge.rows,
            sign_rows=len(range(0, judge.rows, max(1, -(-judge.rows // SIGN_ROWS)))),
            intervals_over=groups.over,
            groups=groups.count,
            heads={head: head_effect(of_head.sums_GQC, vocabulary) for head, of_head in sums.items()},
            figures=figures,
        )

    def readings(self) -> list[str]:
        """The readings that have figures, in order."""
        return list(dict.fromkeys(name for of_head in self.figures.values() for name in of_head))

    def mean(self, reading: str, figure: str) -> float | None:
        """A figure over all heads; heads without it count as 0: a reading that adds nothing explains nothing."""
        values = [
            getattr(of_head[reading], figure) for of_head in self.figures.values() if reading in of_head
        ]
        return sum(value or 0.0 for value in values) / len(values) if values else None
