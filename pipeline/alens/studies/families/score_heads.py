"""Which head does what: every head of a model, scored on controls that need no labels.

In: the name of a model, perhaps relations between words. Out: `HeadFamilies`. No lenses and no cache are needed: heads are
scored by where they look on random tokens (`attention_scores`), and by what their parameters make of a token that they
look at (`token_maps`).
"""

import dataclasses
import logging
from collections.abc import Sequence

import torch

from alens.errors import RequestError
from alens.job.progress import Report, silent
from alens.machine.allotment import follow_allotment
from alens.model import logit_fingerprint, models
from alens.model.bridge import attention_layers
from alens.model.examine import head_write
from alens.model.models import LoadedModel
from alens.store.model_record import OTHER_NORM, NormRecord
from alens.studies.families import relations as pairs
from alens.studies.families.attention_scores import FAMILIES, Scores, attention_scores
from alens.studies.families.relations import Relation, RelationTokens, relation_tokens
from alens.studies.families.repeated_tokens import RepeatedTokens, sampled_tokens
from alens.studies.families.result import FamilyScore, HeadFamilies, RelationSize
from alens.studies.families.settings import FamilySettings
from alens.studies.families.token_maps import COPYING, SUPPRESSION, token_map_scores

log = logging.getLogger("alens")


def families_of(relations: Sequence[Relation]) -> list[str]:
    """The names of all families, with those that alens ships and those of `relations`, which take their place.

    Raises `RequestError` where a relation has the name of another one, or of another family.
    """
    names = [relation.name for relation in relations]
    taken = next((name for name in names if names.count(name) > 1 or name in _OWN), None)
    if taken is not None:
        raise RequestError(f"two families are called {taken!r}: give the relation another name")
    return [*_OWN, *(relation.name for relation in _all(relations))]


_OWN = (*FAMILIES, COPYING, SUPPRESSION)


def score_heads(
    model: str,
    settings: FamilySettings | None = None,
    *,
    relations: Sequence[Relation] = (),
    revision: str | None = None,
    device: str = "auto",
    report: Report = silent,
) -> HeadFamilies:
    """Score all heads of `model`: a hub id, a Hugging Face directory or `demo`; `revision` is of the hub.

    `relations` are further families (`read_relations`). Raises `RequestError` for a model that cannot be loaded, does not
    show its attention, or is too small for the settings, and for relations with too few pairs of single tokens. Where
    the parameters of heads do not say what they write, their families are left out, and `left_out` says why.
    """
    settings = settings or FamilySettings()
    families_of(relations)
    follow_allotment()
    source = models.find(model, revision, report=report, hash_weights=False)
    tokenizer, _ = models.load_tokenizer(source)
    tokens = {one.name: relation_tokens(one, tokenizer) for one in _all(relations)}
    for relation in relations:
        if not tokens[relation.name].is_enough:
            raise RequestError(
                f"{relation.source}: {len(tokens[relation.name].sources)} of {len(relation.pairs)} pairs of {relation.name!r} "
                f"are single tokens of {source.record.id}, and {pairs.FEWEST} are needed"
            )
    if settings.top_k > source.record.d_vocab:
        raise RequestError(
            f"top_k is {settings.top_k}: {source.record.id} has {source.record.d_vocab:,} tokens"
        )
    loaded = models.load(source, dtype="float32", device=device, report=report)
    layers = attention_layers(loaded.bridge)
    repeated = RepeatedTokens(loaded, settings.length, settings.seed)
    scores = attention_scores(
        loaded,
        repeated,
        layers,
        sequences=settings.sequences,
        batch_size=settings.batch_size,
        report=report,
    )
    enough = {name: one for name, one in tokens.items() if one.is_enough}
    left_out = _no_write(loaded, layers)
    if left_out is None:
        try:
            scores |= _parameter_scores(loaded, layers, enough, settings, report)
        except RequestError as error:
            left_out = str(error)
    if left_out is not None:
        log.warning("%s: copying, suppression and relations are left out", left_out)
    return HeadFamilies(
        model=source.record.id,
        bos=repeated.bos,
        settings=settings,
        families=_ranked(scores),
        relations={
            name: RelationSize(pairs=len(one.sources), left_out=one.left_out) for name, one in tokens.items()
        },
        left_out=left_out,
    )


def _all(relations: Sequence[Relation]) -> list[Relation]:
    """Those that alens ships, unless others have their name, and `relations`."""
    given = {relation.name for relation in relations}
    shipped = pairs.read_relations([pairs.SHIPPED])
    return [*(relation for relation in shipped if relation.name not in given), *relations]


def _no_write(model: LoadedModel, layers: Sequence[int]) -> str | None:
    """Why z W_O is not what heads write, or cannot be unembedded; None where it can."""
    record, norm = model.source.record, model.final_norm
    with torch.inference_mode():
        write = head_write(model, torch.tensor([logit_fingerprint.tokens(record)]), layers)
    seen = NormRecord(kind=OTHER_NORM, epsilon=0.0) if norm is None else norm.record
    return dataclasses.replace(record, head_write=write, final_norm=seen).no_write


def _parameter_scores(
    model: LoadedModel,
    layers: Sequence[int],
    relations: dict[str, RelationTokens],
    settings: FamilySettings,
    report: Report,
) -> Scores:
    sample = sampled_tokens(model, settings.tokens, settings.seed)
    return token_map_scores(model, layers, sample, relations, top_k=settings.top_k, report=report)


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
