"""The role scores of heads, as an atlas shows them: computed anew, or from a file that `alens heads --json` wrote.

In: a model, or the document of `HeadFamilies`. Out: for each head its place in every family.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alens.atlas.atlas_head import Role
from alens.errors import RequestError
from alens.heads import Head
from alens.job.progress import Report, silent
from alens.store.cache_reader import Cache
from alens.studies.families.score_heads import score_heads

Roles = Mapping[Head, list[Role]]


def roles_of(document: Mapping[str, Any]) -> Roles:
    """By head, its roles in the order of the families. Heads of a family are ranked by how far they stand above their control."""
    by_head: dict[Head, list[Role]] = {}
    for family, scores in document["families"].items():
        ranked = sorted(scores, key=lambda one: one["control"] - one["score"])
        for rank, one in enumerate(ranked, start=1):
            role = Role(
                family=str(family),
                score=float(one["score"]),
                control=float(one["control"]),
                rank=rank,
                heads=len(ranked),
            )
            by_head.setdefault((int(one["layer"]), int(one["head"])), []).append(role)
    return by_head


def read_roles(path: Path) -> Roles:
    """The roles in a file of `alens heads --json`. Raises `RequestError` for another file."""
    try:
        return roles_of(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RequestError(
            f"{path} has no scores of heads: give a file that `alens heads MODEL --json` wrote"
        ) from None


def scored_roles(cache: Cache, model: str | None = None, *, report: Report = silent) -> Roles:
    """The roles of the heads of the model of `cache`, scored as `alens heads` does; `model` says where it is, if it is elsewhere.

    Raises what `score_heads` raises.
    """
    record = cache.plan.model
    revision = None if model else record.revision
    return roles_of(score_heads(model or record.id, revision=revision, device="cpu", report=report).to_json())
