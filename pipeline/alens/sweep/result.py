"""The result of a variant on the held-out rows that all variants of a sweep share, kept by document or sequence.

In: the lens directory of a variant that is fitted. Out, beside it: `held-out.safetensors` (KL summed over the rows of
each document or sequence, for each head) and `result.json` (what the fit took, and the hash of the other file), written last: with
it the variant is finished. The rows, their first position and the target (the model's own distribution, exact where the
cache has it) are those of the sweep, whatever the variant was fitted on and to.
Shapes: G groups (documents or sequences), H heads of all layers.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from alens.errors import DamageError
from alens.evaluation.judge import judge
from alens.evaluation.readings import Readings, constant_reading, lens_readings
from alens.evaluation.sums import KL, ReadingSums
from alens.fit.settings import FitSettings
from alens.fit.training_shards import eval_rows
from alens.job.interruption import InterruptedWorkError, droppable
from alens.job.progress import Report, ShouldStop, counted, never, silent
from alens.lens.directory import LensDirectory
from alens.lens.lenses import Lenses
from alens.rows.columns import RowReader
from alens.rows.held_out_rows import HeldOutPart, HeldOutRows
from alens.statistics.bootstrap import Array, resampled_means
from alens.statistics.groups import SEQUENCES, Groups
from alens.store import document, durable, typed
from alens.store.cache_reader import Cache
from alens.store.durable import write_errors
from alens.store.typed import STRICT, Amount, Natural

MEND = "it cannot be used"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Figures:
    """What `result.json` holds."""

    __pydantic_config__ = STRICT

    failed: str | None = None
    """Why it has no lenses: its loss was not finite."""
    steps: Natural = 0
    rows_seen: Natural = 0
    seconds: Amount = 0.0
    """Time in its steps and its part of the time spent waiting for data, over all runs."""
    converged: Natural = 0
    """Lenses that stopped before the last step."""
    heads: tuple[tuple[Natural, Natural], ...] = ()
    """(layer, head) of each lens."""
    cross_entropy: tuple[float, ...] = ()
    top1_agreement: tuple[float, ...] = ()
    says_nothing: tuple[bool, ...] = ()
    """Whether each lens was no better than the mean output in its fit; empty in results of earlier versions."""
    mean_output_kl: float | None = None
    """KL of the mean output of the variant's training rows on the same held-out rows: that of a lens which ignores its
    input. None in results of earlier versions."""
    intervals_over: str = SEQUENCES
    """What the sums are over: `documents` or `sequences`."""
    sequences: Natural | None = None
    """Held-out sequences; None in results of earlier versions, whose sums are by sequence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Document(_Figures):
    sums_sha256: str
    """SHA-256 of `held-out.safetensors`."""

    def __post_init__(self) -> None:
        """Raises `TypeError`, because the file may come from anywhere."""
        lens = len(self.heads)
        if {len(self.cross_entropy), len(self.top1_agreement)} != {lens} or len(self.says_nothing) not in (
            0,
            lens,
        ):
            raise TypeError("heads, cross_entropy, top1_agreement and says_nothing have different lengths")
        if (self.failed is None) != (lens > 0):
            raise TypeError("heads and failed contradict each other")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantResult(_Figures):
    """How a variant ended."""

    kl_GH: Array = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    rows_G: Array = dataclasses.field(default_factory=lambda: np.zeros(0))

    @property
    def kl_H(self) -> Array:
        """The mean KL over rows, nats."""
        means_H: Array = self.kl_GH.sum(axis=0) / self.rows_G.sum()
        return means_H

    def resampled(self) -> Array | None:
        """(R, H) KL of resamples; None for a single document or sequence, which says nothing about others."""
        if len(self.rows_G) < 2:
            return None
        return resampled_means(self.kl_GH, self.rows_G, seed=0)


def judge_variant(
    lenses: Lenses,
    cache: Cache,
    base: FitSettings,
    shards: Sequence[int],
    device: torch.device,
    should_stop: ShouldStop = never,
    report: Report = silent,
) -> VariantResult:
    """The figures of fitted lenses on the held-out rows of the sweep's base settings.

    Raises `InterruptedWorkError` where `should_stop` says so.
    """
    record, settings = lenses.record, cache.plan.settings
    reader = RowReader(
        cache, record.lenses, settings.best_teacher, base.min_position, device, site=record.site
    )
    groups = Groups.of_shards(cache, shards)
    layers = counted(record.layers, report, "reading lenses", "layers")
    maps = {layer: lenses.layer(layer).maps.to(device).folded() for layer in layers}
    log_mean_V = lenses.log_mean_output()
    assert log_mean_V is not None  # lenses that were fitted here have one
    nothing = constant_reading(log_mean_V.to(device))

    def readings(part: HeldOutPart) -> list[Readings]:
        return [one for layer in maps for one in lens_readings(maps[layer], part.values(layer))] + [nothing]

    sums = ReadingSums(len(record.lenses) + 1, device, num_groups=groups.count)
    with droppable(should_stop) as work:
        rows = HeldOutRows(reader=reader, shards=shards, num_rows=eval_rows(base, cache.plan))
        judge(rows, readings, sums, groups=groups, report=report)
    if work.left_out:
        raise InterruptedWorkError
    *figures, mean_output = sums.means()
    rows_G, kl_GH = sums.rows_G.cpu().numpy(), sums.sums_GQC[:, :-1, KL].cpu().numpy()
    return VariantResult(
        steps=record.fit["steps"],
        rows_seen=record.fit["rows_seen"],
        converged=len(record.fit["converged"]),
        heads=record.lenses.pairs,
        cross_entropy=tuple(head.cross_entropy for head in figures),
        top1_agreement=tuple(head.top1_agreement for head in figures),
        says_nothing=tuple(record.says_nothing(layer, head) for layer, head in record.lenses),
        mean_output_kl=mean_output.kl,
        intervals_over=groups.over,
        sequences=groups.sequences,
        kl_GH=kl_GH[rows_G > 0],
        rows_G=rows_G[rows_G > 0],
    )


def put_result(folder: Path, result: VariantResult) -> None:
    """Writes a result durably, `result.json` last."""
    body, directory = dataclasses.asdict(result), LensDirectory(folder)
    sums = save({"kl": np.ascontiguousarray(body.pop("kl_GH")), "rows": body.pop("rows_G")})
    with write_errors(folder):
        durable.put(directory.sequence_sums, sums)
        hashed = {"sums_sha256": durable.sha256_of(directory.sequence_sums)}
        durable.put(directory.result, document.encode({**_plain(body), **hashed}))


def read_result(folder: Path) -> VariantResult | None:
    """The result of a variant, or None while it is not finished. Raises `DamageError` for a damaged one."""
    directory = LensDirectory(folder)
    path, sums = directory.result, directory.sequence_sums
    try:
        body = typed.parse(_Document, document.decode(document.content(path), str(path)), str(path), MEND)
        if durable.sha256_of(sums) != body.sums_sha256:
            raise DamageError(f"{sums} was altered: {MEND}")
        arrays = load(sums.read_bytes())
        return _result(body, arrays["kl"], arrays["rows"])
    except FileNotFoundError:
        if path.exists():
            raise DamageError(f"{sums} is missing: delete {path} and sweep again") from None
        return None
    except (DamageError, SafetensorError, ValueError, KeyError) as error:
        why = error if isinstance(error, DamageError) else f"{sums} is not whole ({error})"
        raise DamageError(
            f"{str(why).removesuffix(f': {MEND}')}: delete {path} and sweep again, which judges anew"
        ) from None


def _result(body: _Document, kl_GH: Array, rows_G: Array) -> VariantResult:
    """Raises `ValueError` for sums that cannot belong to the lenses."""
    right = kl_GH.ndim == 2 and kl_GH.shape == (
        len(rows_G),
        len(body.heads) if len(rows_G) else kl_GH.shape[1],
    )
    if rows_G.ndim != 1 or not right or not all(part.dtype == np.float64 for part in (kl_GH, rows_G)):
        raise ValueError(f"kl is {kl_GH.shape} and rows {rows_G.shape}, of {len(body.heads)} lenses")
    if not (np.isfinite(kl_GH).all() and np.isfinite(rows_G).all() and (rows_G > 0).all()):
        raise ValueError("numbers that cannot be")
    if body.failed is None and not len(rows_G):
        raise ValueError("no rows")
    plain = {field.name: getattr(body, field.name) for field in dataclasses.fields(_Figures)}
    return VariantResult(**plain, kl_GH=kl_GH, rows_G=rows_G)


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    """The same with lists in place of tuples, as JSON gives them back."""
    return {
        name: [list(part) if isinstance(part, tuple) else part for part in value]
        if isinstance(value, tuple)
        else value
        for name, value in body.items()
    }


def check_rows(out: Path, results: dict[str, VariantResult]) -> None:
    """Raises `DamageError` unless all variants were judged on the same documents or sequences."""
    rows = [result.rows_G for result in results.values()]
    if any(not np.array_equal(one, rows[0]) for one in rows):
        raise DamageError(
            f"variants of {out} were judged on other held-out rows: delete their result.json and sweep again"
        )
