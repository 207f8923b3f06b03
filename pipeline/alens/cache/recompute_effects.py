"""Measured effects of heads, computed again and compared, where a cache has some.

In: a cache with `effects/`, its model, a number of rows. Out: differences of `effects/LL`, by layer. Each comparison is of
one head on one whole sequence, drawn at random: the model runs whole and without the head, from the first layer on, so that
a pass that began at the head's layer is checked too.

Tolerance. An effect is the difference of two final residuals, each off by the noise of its row, and is stored as float16.
Shapes: T tokens, H heads, E d_head, D d_model.
"""

import random

import numpy as np
import torch

from alens.cache import tolerance
from alens.cache.array_differences import LargestDifferences
from alens.errors import StoppedError
from alens.heads import Heads
from alens.job.progress import Progress, Report, ShouldStop
from alens.model.models import LoadedModel
from alens.model.partial_pass import clean_pass, without_heads
from alens.rows.moments import mean_z
from alens.store.cache_reader import Cache
from alens.store.effect_files import FIRST_POSITION, EffectFile, EffectFiles
from alens.store.effect_reader import rows_of
from alens.store.paths import EFFECTS

Pick = tuple[EffectFile, int, int]
"""A file of effects, and the place of a head and of a sequence in it."""


def pick_effects(cache: Cache, num_rows: int, seed: int) -> list[Pick]:
    """Heads on whole sequences at random, as many as have so many rows, one at least where there are effects."""
    files = EffectFiles(cache.paths.root, cache.plan.identity, cache.stage)
    there = [file for shard in files.shards() for file in files.of_shard(shard)]
    places = [
        (file, head, sequence)
        for file in there
        for head in range(len(file.record.heads))
        for sequence in range(len(file.record.sequences))
    ]
    count = max(1, num_rows // (cache.plan.settings.seq_len - FIRST_POSITION))
    return random.Random(seed).sample(places, min(count, len(places)))


def compare_effects(
    cache: Cache,
    model: LoadedModel,
    picked: list[Pick],
    report: Report,
    should_stop: ShouldStop,
    differences: LargestDifferences,
) -> None:
    """Add the differences of these effects.

    Raises `DamageError` where a file of effects is not what was written, `StoppedError` when asked to stop.
    """
    plan, settings = cache.plan, cache.plan.settings
    positions = settings.seq_len - FIRST_POSITION
    for number, (file, head_place, place) in enumerate(picked):
        if should_stop():
            raise StoppedError(f"stopped; {number} of {len(picked)} effects were compared")
        report(Progress(stage="recompute effects", done=number, total=len(picked), unit="effects"))
        record = file.record
        layer, head, sequence = record.layer, record.heads[head_place], record.sequences[place]
        stored_ND = file.read(len(record.sequences) * positions, plan.model.d_model)[:, head_place]
        stored_TD = torch.from_numpy(stored_ND[place * positions : (place + 1) * positions]).float()
        tokens_1T = torch.from_numpy(cache.tokens[sequence : sequence + 1].astype(np.int64))
        every_head = Heads.grid((layer,), range(plan.model.n_heads))
        mean_HE = mean_z(cache, every_head)[layer].to(model.device)
        clean = clean_pass(model, tokens_1T, (layer,))
        without_1TD = without_heads(model, clean, layer, [(head, 0)], mean_HE, whole=True)
        final_TD, ablated_TD = (
            value_1TD[0, FIRST_POSITION:].float().cpu() for value_1TD in (clean.final_BTD, without_1TD)
        )
        effect_TD = final_TD - ablated_TD
        off_T1 = tolerance.noise(plan) * (tolerance.largest(final_TD) + tolerance.largest(ablated_TD))
        allowed_TD = tolerance.for_float16(effect_TD, plan, rounded=False) + off_T1
        row_T = rows_of(cache, [sequence]).row_N
        differences.add(f"{EFFECTS}/{layer:02d}", (stored_TD - effect_TD).abs(), allowed_TD, row_T)
