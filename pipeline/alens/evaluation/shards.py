"""Which text lenses are judged on: text that their fit did not train on, as far as that can be known.

In: lenses and a cache. Out: a `JudgedText`.
- On the cache of the fit: the shards that the fit held out.
- On another cache of the same text: the sequences that hold no document of the training text; where documents are not
  known but the sequences are the same, the sequences that were not trained on.
- Where neither is known: all of the cache, with a warning.
Shapes: B sequences of the cache.
"""

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np
import torch

from alens.errors import RequestError
from alens.evaluation.training import Mask, Training
from alens.lens.lenses import Lenses
from alens.store import same_model
from alens.store.cache_reader import Cache
from alens.store.model_record import FOLDS

log = logging.getLogger("alens")


NOT_TRAINED_ON, UNKNOWN = "no", "unknown"
"""Whether a fit was trained on some of the judged rows, as far as that is known."""


@dataclass(frozen=True, kw_only=True)
class JudgedText:
    """The part of a cache that lenses are judged on."""

    shards: tuple[int, ...]
    sequences_B: Mask | None = None
    """(B,) which sequences are judged on; None for all sequences of these shards."""
    trained_on: str = NOT_TRAINED_ON
    """`no` or `unknown`: whether a fit was trained on some of it."""
    left_out: int = 0
    """How many sequences are left out because a fit was trained on them."""

    def mask(self, cache: Cache) -> Mask:
        """(B,) which sequences of the cache are judged on."""
        if self.sequences_B is not None:
            return self.sequences_B
        size = cache.plan.settings.sequences_per_shard
        judged_B = np.zeros(cache.plan.tokens.sequences, dtype=np.bool_)
        for shard in self.shards:
            judged_B[shard * size : (shard + 1) * size] = True
        return judged_B


def check_same_model(lenses: Lenses, cache: Cache) -> None:
    """Check that lenses and cache are of one model; warn where their sequences begin otherwise.

    Raises `RequestError` where they are not; `DamageError`, now or when a layer is read, where the lenses' output
    matrices are not those of the model.
    """
    lenses.check_model(cache.plan.model, f"the model of {cache.root}")
    if (lacking := same_model.unchecked(lenses.record.model, cache.plan.model)) is not None:
        old = lenses.name if lenses.record.model.config is None else cache.root
        log.warning(f"{old} was made by an earlier alens: {lacking}")
    if lenses.record.cache.get("plan") is not None and lenses.record.bos != cache.plan.tokens.bos:
        one, other = (
            "with" if bos is not None else "without" for bos in (lenses.record.bos, cache.plan.tokens.bos)
        )
        log.warning(
            f"{lenses.name} was fitted on sequences {one} BOS, and those of {cache.root} are {other}: heads that look at "
            "the first token compute other values"
        )
    if (lenses.record.model.head_write in FOLDS) == (cache.plan.model.head_write in FOLDS):
        lenses.tie(
            torch.from_numpy(cache.weights("W_O"))
        )  # else one of them is of an alens that folded nothing


def fitted_on(lenses: Lenses, cache: Cache) -> bool:
    """Whether the lenses were fitted on this cache."""
    return bool(lenses.record.cache["plan"] == cache.plan.identity)


def judged_text(lenses: Lenses, cache: Cache) -> JudgedText:
    """The held-out shards of the fit's own cache; of another cache, what the lenses were not trained on.

    Raises `RequestError` where nothing is left.
    """
    if fitted_on(lenses, cache):
        return JudgedText(shards=held_out_shards(lenses, cache))
    if not cache.shards:
        raise RequestError(f"{cache.root} has no committed shard yet: run `alens cache` first")
    return without_training_rows(JudgedText(shards=cache.shards), lenses, cache)


def text_held_out_by(other: Lenses, lenses: Lenses, cache: Cache) -> JudgedText:
    """The shards that the fit of `other` held out, without text that `lenses` were trained on."""
    return without_training_rows(JudgedText(shards=held_out_shards(other, cache)), lenses, cache)


def without_training_rows(text: JudgedText, lenses: Lenses, cache: Cache) -> JudgedText:
    """`text` without the sequences that `lenses` were trained on. Warns where these are unknown.

    Raises `RequestError` where nothing is left.
    """
    training = Training.of(lenses, cache)
    if training.trained_B is None:
        log.warning(
            "%s: %s: some rows may have been trained on, and figures may be too good",
            lenses.name,
            training.why,
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
    """The shards that the fit held out. Raises `RequestError` where it read another cache, or one of them is missing."""
    if not fitted_on(lenses, cache):
        raise RequestError(f"{lenses.name} was not fitted on {cache.root}: it held out no shards of it")
    shards = tuple(lenses.record.cache["held_out_shards"])
    committed = {*cache.shards}
    missing = [shard for shard in shards if shard not in committed]
    if missing:
        raise RequestError(
            f"{cache.root} lacks shard {missing[0]}, which the fit held out: run `alens cache` again to write it"
        )
    return shards
