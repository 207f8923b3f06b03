"""The one loop over held-out rows: what fits, sweeps, studies and `alens eval` judge readings with.

In: held-out rows, and a function that makes readings of a part of them. Out: `ReadingSums`, filled. Inside
`job.interruption.droppable` the loop ends early when somebody asks to stop; whoever began the work drops the sums then.
Shapes: N rows, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch

from alens.evaluation.readings import Readings
from alens.evaluation.reference import Reference
from alens.evaluation.sums import FEW, TOP10, ReadingSums
from alens.job.progress import Report, counting, silent
from alens.rows.columns import Columns
from alens.rows.held_out_rows import NO_NEXT_TOKEN, HeldOutPart, HeldOutRows
from alens.rows.teacher import Teacher
from alens.statistics.groups import Groups
from alens.store.cache_reader import Cache

Target = Callable[[Columns, Teacher], Teacher]
"""What readings are held against in place of the model's own distributions."""

TOP_TOKENS = 10
"""Tokens of the second agreement; fewer where the cache holds fewer."""


def judge(
    rows: HeldOutRows,
    readings: Callable[[HeldOutPart], Sequence[Readings]],
    sums: ReadingSums,
    *,
    groups: Groups | None = None,
    token_bytes_V: torch.Tensor | None = None,
    target: Target | None = None,
    report: Report = silent,
    stage: str = "judge",
) -> ReadingSums:
    """Add all of `rows` to `sums`, and give them back.

    `readings` are in the order of the sums. `groups` say which sums by group a row belongs to. `token_bytes_V`, on the
    device, are the bytes of each token.
    """
    tell = counting(report, stage, "rows", rows.count)
    for part in rows.parts():
        reference = reference_of(part, sums.figures, groups, token_bytes_V, target)
        sums.add(readings(part), reference, tell)
    return sums


def num_top_tokens(cache: Cache) -> int:
    """How many tokens the top-10 agreement compares."""
    return min(TOP_TOKENS, cache.plan.settings.top_k, cache.plan.model.d_vocab)


def reference_of(
    part: HeldOutPart,
    figures: Sequence[int] = FEW,
    groups: Groups | None = None,
    token_bytes_V: torch.Tensor | None = None,
    target: Target | None = None,
) -> Reference:
    """What readings of some rows are held against, as `judge` says."""
    next_ids_N, device = part.next_ids_N, part.reader.device
    next_bytes_N, groups_N = None, None
    if token_bytes_V is not None:
        next_bytes_N = torch.where(next_ids_N != NO_NEXT_TOKEN, token_bytes_V[next_ids_N.clamp_min(0)], 0)
    if groups is not None:
        groups_N = torch.from_numpy(groups.numbers(part.columns.by_name["rows/sequence"])).to(device)
    return Reference(
        teacher=part.teacher if target is None else target(part.columns, part.teacher),
        first=part.choice(1),
        several=part.choice(num_top_tokens(part.reader.cache)) if TOP10 in figures else None,
        next_ids_N=next_ids_N,
        groups_N=groups_N,
        next_bytes_N=next_bytes_N,
    )
