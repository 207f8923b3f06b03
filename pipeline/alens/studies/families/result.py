"""The result of `score_heads`: the heads of a model, ranked within each family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alens.result import Result, plain
from alens.studies.families.settings import FamilySettings


@dataclass(frozen=True, kw_only=True)
class FamilyScore:
    """How far one head belongs to one family."""

    layer: int
    head: int
    score: float
    """The higher, the more the head belongs to the family."""
    control: float
    """The same measure where there is nothing of the family to be seen."""

    @property
    def above(self) -> float:
        """How far the score stands above its control."""
        return self.score - self.control


@dataclass(frozen=True, kw_only=True)
class RelationSize:
    """How many pairs of a relation heads were scored on; a relation with too few is not among the families."""

    pairs: int
    """Pairs of single tokens."""
    left_out: int
    """Pairs with a word of several tokens."""


@dataclass(frozen=True, kw_only=True)
class HeadFamilies(Result):
    """Every head in every family."""

    model: str
    """The id or the directory of the model."""
    bos: int | None
    """The token that random sequences begin with; None: the model has no BOS token, and they begin with a random one."""
    settings: FamilySettings
    families: Mapping[str, Sequence[FamilyScore]]
    """By name; the head that stands furthest above its control comes first."""
    relations: Mapping[str, RelationSize]
    left_out: str | None
    """Why copying, suppression and relations are not among the families; None where they are."""

    def headline(self) -> str:
        firsts = (f"{name} {scores[0].layer}.{scores[0].head}" for name, scores in self.families.items())
        return f"{self.model}: {', '.join(firsts)}"

    def to_json(self) -> dict[str, Any]:
        families = {
            name: [{**plain(score), "above": score.above} for score in scores]
            for name, scores in self.families.items()
        }
        return {
            "model": self.model,
            "bos": self.bos,
            "settings": plain(self.settings),
            "relations": plain(self.relations),
            "left_out": self.left_out,
            "families": families,
        }

    def telling(self) -> list[dict[str, Any]]:
        """A row a family, with its first heads and how far each stands above its control."""
        return [
            {"family": name}
            | {
                place: f"{one.layer}.{one.head} ({one.above:+.3f})"
                for place, one in zip(("first", "second", "third"), scores, strict=False)
            }
            for name, scores in self.families.items()
        ]

    def records(self) -> list[dict[str, Any]]:
        """A row a family and head."""
        return [
            {"family": name, **score}
            for name, scores in self.to_json()["families"].items()
            for score in scores
        ]
