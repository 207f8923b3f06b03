"""What lenses are judged on: rows that their fit did not train on, as far as that can be known.

In: lenses and a cache. Out: a `JudgedText`. On the cache of the fit these are the shards that it held out. Of another
cache of the same text they are the sequences without a document that was trained on; where documents are not known but
the sequences are the same ones, those that were not trained on. Where neither can be told, all of it, with a warning.
Shapes: B sequences of the cache, T tokens.
"""

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.evaluation.training import Training
from alens.lens.lenses import Lenses
from alens.store import same_model
from alens.store.cache_reader import Cache

log = logging.getLogger("alens")

Mask = npt.NDArray[np.bool_]

NOT_TRAINED_ON, UNKNOWN = "no", "unknown"
"""Whether rows that are judged on were trained on, as far as can be told."""


@dataclass(frozen=True, kw_only=True)
class JudgedText:
    """Which rows of a cache lenses are judged on."""

    shards: tuple[int, ...]
    sequences_B: Mask | None = None
    """Which sequences of these shards; None for all."""
    trained_on: str = NOT_TRAINED_ON
    """`no`, or `unknown`."""
    left_out: int = 0
    """Sequences that are not judged on because they were trained on."""

    def mask(self, cache: Cache) -> Mask:
        """(B,) the sequences that are judged on."""
        if self.sequences_B is not None:
            return self.sequences_B
        size = cache.plan.settings.sequences_per_shard
        found = np.zeros(cache.plan.tokens.sequences, dtype=np.bool_)
        for shard in self.shards:
            found[shard * size : (shard + 1) * size] = True
        return found


def check_same_model(lenses: Lenses, cache: Cache) -> None:
    """Raises `RequestError` unless both are of one model, `DamageError`, now or when a layer is read, where weights are
    not those of the heads that the lenses name."""
    lenses.check_model(cache.plan.model, f"the model of {cache.root}")
    if (lacking := same_model.unchecked(lenses.record.model, cache.plan.model)) is not None:
        old = lenses.name if lenses.record.model.config is None else cache.root
        log.warning(f"{old} was made by an earlier alens: {lacking}")
    lenses.tie(torch.from_numpy(cache.weights("W_O")))


def fitted_on(lenses: Lenses, cache: Cache) -> bool:
    """Whether this is the cache of their fit."""
    return bool(lenses.record.cache["plan"] == cache.plan.identity)


def judged_text(lenses: Lenses, cache: Cache) -> JudgedText:
    """Held-out shards on the cache of the fit; of another, what is not known to be trained on.

    Raises `RequestError` where nothing is left.
    """
    if fitted_on(lenses, cache):
        return JudgedText(shards=held_out_shards(lenses, cache))
    if not cache.shards:
        raise RequestError(f"{cache.root} has no committed shard yet: run `alens cache` first")
    return without_training_rows(JudgedText(shards=cache.shards), lenses, cache)


def text_held_out_by(other: Lenses, lenses: Lenses, cache: Cache) -> JudgedText:
    """The shards that the fit of `other` held out, without what `lenses` were trained on."""
    return without_training_rows(JudgedText(shards=held_out_shards(other, cache)), lenses, cache)


def without_training_rows(text: JudgedText, lenses: Lenses, cache: Cache) -> JudgedText:
    """`text` without sequences that `lenses` were trained on; with a warning where that cannot be told.

    Raises `RequestError` where nothing is left.
    """
    training = Training.of(lenses, cache)
    if training.trained_B is None:
        log.warning(
            "%s: %s: figures may be of rows that were trained on, and too good", lenses.name, training.why
        )
        return dataclasses.replace(text, trained_on=UNKNOWN)
    before_B = text.mask(cache)
    judged_B = before_B & ~training.trained_B
    size = cache.plan.settings.sequences_per_shard
    shards = tuple(shard for shard in text.shards if judged_B[shard * size : (shard + 1) * size].any())
    if not shards:
        raise RequestError(
            f"{lenses.name} was trained on all that could be judged on in {cache.root}: take the cache of its fit, or other text"
        )
    return dataclasses.replace(
        text,
        shards=shards,
        sequences_B=judged_B if judged_B.sum() < len(shards) * size else None,
        left_out=text.left_out + int(before_B.sum() - judged_B.sum()),
    )


def held_out_shards(lenses: Lenses, cache: Cache) -> tuple[int, ...]:
    """Those that the fit set aside. Raises `RequestError` where it was another cache, or one is not there."""
    if not fitted_on(lenses, cache):
        raise RequestError(f"{lenses.name} was not fitted on {cache.root}: it held out no shards of it")
    shards = tuple(lenses.record.cache["held_out_shards"])
    missing = [shard for shard in shards if shard not in cache.shards]
    if missing:
        raise RequestError(
            f"{cache.root} lacks shard {missing[0]}, which the fit held out: run `alens cache` again to write it"
        )
    return shards
