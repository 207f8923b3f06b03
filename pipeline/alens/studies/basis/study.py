"""The inputs of a study of causal bases, checked against lenses and cache before the work.

In: lenses of heads with their model loaded, a cache of the same model, settings. Out: a `CheckedStudy`.
"""

from dataclasses import dataclass

from alens.errors import RequestError
from alens.evaluation.shards import judged_text
from alens.heads import Heads
from alens.reading.lensed_model import LensedModel
from alens.store.cache_reader import Cache
from alens.store.schema import ATTN_Z
from alens.studies.basis import held_out_sample
from alens.studies.basis.held_out_sample import HeldOutSample
from alens.studies.basis.settings import BasisSettings


@dataclass(frozen=True, kw_only=True)
class CheckedStudy:
    """Heads, directions and held-out text of a study."""

    reader: LensedModel
    cache: Cache
    settings: BasisSettings
    heads: Heads
    directions: int
    """Directions of each basis."""
    min_position: int
    """The first position of a sequence that is ablated and measured."""
    trained_on: str
    """`no`, or `unknown`: the fit may have trained on some rows of the sample."""
    sample: HeldOutSample

    @property
    def positions(self) -> int:
        """How many positions of each sequence are ablated and measured."""
        return int(self.sample.tokens_ST.shape[1]) - self.min_position


def checked_study(reader: LensedModel, cache: Cache, settings: BasisSettings) -> CheckedStudy:
    """Check a study, and draw its text. Raises `RequestError` for what lenses or cache do not have."""
    lenses = reader.lenses
    if lenses.record.site != ATTN_Z:
        raise RequestError(
            f"{lenses.name} read {lenses.record.site}: causal bases are of attention heads, take lenses of {ATTN_Z}"
        )
    lenses.check_model(cache.plan.model, f"the model of {cache.root}")
    heads = reader.chosen(settings.layers, settings.heads)
    cache.check_layers(heads.layers)
    width = lenses.record.model.d_head
    directions = width if settings.directions is None else settings.directions
    if not max(3, settings.top) <= directions <= width:
        raise RequestError(
            f"directions is {directions} and top {settings.top}: z of a head has {width} directions"
        )
    if "unembedding" in settings.compare and reader.no_unembedding is not None:
        raise RequestError(f"{reader.no_unembedding}: leave the unembedding out of --compare")
    min_position, text = int(lenses.record.fit["min_position"]), judged_text(lenses, cache)
    return CheckedStudy(
        reader=reader,
        cache=cache,
        settings=settings,
        heads=heads,
        directions=directions,
        min_position=min_position,
        trained_on=text.trained_on,
        sample=held_out_sample.draw(
            cache,
            text,
            num_rows=settings.rows,
            num_sequences=settings.sequences,
            min_position=min_position,
            seed=settings.seed,
        ),
    )
