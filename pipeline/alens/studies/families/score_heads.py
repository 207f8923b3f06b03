"""Which head does what: every head of a model, scored on controls that need no labels.

In: the name of a model. Out: `HeadFamilies`. No lenses and no cache are needed: heads are scored by where they look on
random tokens (`attention_scores`).
"""

from alens.job.progress import Report, silent
from alens.machine.allotment import follow_allotment
from alens.model import models
from alens.model.bridge import attention_layers
from alens.studies.families.attention_scores import Scores, attention_scores
from alens.studies.families.repeated_tokens import RepeatedTokens
from alens.studies.families.result import FamilyScore, HeadFamilies
from alens.studies.families.settings import FamilySettings


def score_heads(
    model: str,
    settings: FamilySettings | None = None,
    *,
    revision: str | None = None,
    device: str = "auto",
    report: Report = silent,
) -> HeadFamilies:
    """Score all heads of `model`: a hub id, a Hugging Face directory or `demo`; `revision` is of the hub.

    Raises `RequestError` for a model that cannot be loaded, does not show its attention, or is too small for the settings.
    """
    settings = settings or FamilySettings()
    follow_allotment()
    source = models.find(model, revision, report=report, hash_weights=False)
    loaded = models.load(source, dtype="float32", device=device, report=report)
    tokens = RepeatedTokens(loaded, settings.length, settings.seed)
    scores = attention_scores(
        loaded,
        tokens,
        attention_layers(loaded.bridge),
        sequences=settings.sequences,
        batch_size=settings.batch_size,
        report=report,
    )
    return HeadFamilies(model=source.record.id, bos=tokens.bos, settings=settings, families=_ranked(scores))


def _ranked(scores: Scores) -> dict[str, list[FamilyScore]]:
    """Heads by how far they stand above their control, first to last."""
    return {
        family: sorted(
            (
                FamilyScore(layer=layer, head=head, score=score, control=control)
                for (layer, head), (score, control) in by_head.items()
            ),
            key=lambda one: -one.above,
        )
        for family, by_head in scores.items()
    }
