"""How fast this machine runs the model: bare, and reduced to the arrays of a cache.

In: the loaded model, a `Plan`, tokens, a budget. Out: `ModelRates`. The timed code is the code that does the work,
`alens.cache.shard.compute`: on part of one sequence first, then on more, until the budget is used. A model that is too
large even for that is stopped between two of its blocks: those that were run stand for the others.
Shapes: N rows, B sequences, T tokens, D d_model, V vocabulary.
"""

import dataclasses
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.cache import shard as shards
from alens.cache import target_compression
from alens.cache.shard import batches
from alens.errors import RunError
from alens.machine.products import unembed
from alens.model.models import LoadedModel
from alens.planning.budget import Budget, Clock, Took, timed
from alens.planning.stand_ins import stand_ins
from alens.store.schema import Plan

Tokens = npt.NDArray[Any]

FIRST_TOKENS = 64
"""Tokens of the first piece: fewer run several times slower a token than a batch does."""

LEAST_S = 2.0
"""CPU seconds that the first piece may take, whatever was used before."""

GROWTH = 8
"""A piece has at most this many times the rows of the one before: small pieces foretell large ones badly."""

ENOUGH_S = 1.0
"""A piece of a whole batch or more that takes this long is not repeated with more rows."""

UNEMBEDDED_ROWS = 16
"""Rows whose targets are timed where the model itself was stopped."""


@dataclass(frozen=True, kw_only=True)
class ModelRates:
    """The model on this device."""

    plan: Plan
    """The plan of the rows that were run, as one shard."""
    arrays: shards.Arrays
    """The arrays of that shard."""
    forward_s: float
    """Seconds a row of the bare model, with all logits, in batches of the plan's size."""
    compute_s: float
    """Seconds a row of `alens.cache.shard.compute`, likewise."""
    memory_bytes: int
    """The most memory that this process held while it computed, without the arrays of the probe."""
    device_bytes: int | None
    """The most memory that tensors took on a CUDA device; None on a CPU."""
    took: Took
    """The time that all of it took."""
    blocks: tuple[int, int] | None
    """(blocks that were run, blocks of the model) where the budget did not reach for one piece, else None."""
    batch_rows: int
    """Rows of a batch of the plan."""

    @property
    def scaled_from(self) -> str | None:
        """What the rates were taken from, where that is less than a batch."""
        if self.blocks is not None:
            return f"{self.blocks[0]} of its {self.blocks[1]} blocks, run on {self.plan.rows:,} rows"
        if self.plan.rows < self.batch_rows:
            return f"{self.plan.rows:,} of the {self.batch_rows:,} rows of a batch"
        return None


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A piece that was timed."""

    plan: Plan
    arrays: shards.Arrays
    compute: Took
    forward: Took

    @property
    def cost_s(self) -> float:
        """CPU seconds, or seconds of another device."""
        both = self.compute + self.forward
        return both.cpu_s if both.threads else both.wall_s


def model_rates(model: LoadedModel, plan: Plan, tokens_BT: Tokens, budget: Budget) -> ModelRates:
    """Time the bare model and the computing of a shard, on at most all of `tokens_BT`.

    Raises what `alens cache` would raise on this model.
    """
    batch_rows = min(plan.settings.batch_size, plan.settings.sequences_per_shard) * plan.settings.seq_len
    pieces: list[_Piece] = []
    part: Plan | None = _part(plan, 1, min(FIRST_TOKENS, plan.settings.seq_len))
    while part is not None:
        try:
            pieces.append(
                _piece(model, part, tokens_BT, None if pieces else Budget(max(budget.left, LEAST_S)))
            )
        except _StoppedError as stopped:
            return _by_blocks(model, part, stopped, batch_rows)
        part = _next(plan, pieces[-1], len(tokens_BT), batch_rows, budget)
    last = pieces[-1]
    computes, forwards = [piece.compute for piece in pieces], [piece.forward for piece in pieces]
    rows = [piece.plan.rows for piece in pieces]
    return ModelRates(
        plan=last.plan,
        arrays=last.arrays,
        forward_s=_a_row(rows, forwards, batch_rows),
        compute_s=_a_row(rows, computes, batch_rows),
        took=sum(forwards, start=sum(computes[1:], start=computes[0])),
        blocks=None,
        batch_rows=batch_rows,
        memory_bytes=_host_bytes(last.arrays),
        device_bytes=_device_bytes(model.device),
    )


def _next(plan: Plan, piece: _Piece, most: int, batch_rows: int, budget: Budget) -> Plan | None:
    """The plan of the next piece; None where this one is enough, or a larger one would not fit into the budget."""
    T, done = plan.settings.seq_len, piece.plan.rows
    if done >= batch_rows and piece.cost_s >= ENOUGH_S:
        return None
    sequences = min(most, int(min(budget.left / max(piece.cost_s, 1e-6), GROWTH) * done) // T)
    if sequences > plan.settings.batch_size:
        sequences -= sequences % plan.settings.batch_size
    return _part(plan, sequences, T) if sequences * T > done else None


def _a_row(rows: list[int], times: list[Took], batch_rows: int) -> float:
    """Seconds a row in batches of `batch_rows`, on a line through the last two pieces where these are smaller.

    Each piece has a cost of its own beside that of its rows: to read all weights.
    """
    last = times[-1].alone_s / rows[-1]
    if rows[-1] >= batch_rows or len(rows) < 2:
        return last
    slope = (times[-1].alone_s - times[-2].alone_s) / (rows[-1] - rows[-2])
    slope = min(max(slope, last / 2), last)  # two times of a busy machine give any line
    return slope + (last - slope) * rows[-1] / batch_rows


def _piece(model: LoadedModel, part: Plan, tokens_BT: Tokens, budget: Budget | None) -> _Piece:
    """Time a piece; raises `_StoppedError` where `budget` is used before the model has run."""
    tokens_BT = tokens_BT[: part.tokens.sequences, : part.settings.seq_len]
    stop = _Stop(len(getattr(model.bridge, "blocks", ())), model.device, budget)
    arrays, compute = timed(
        lambda: shards.compute(model, part, tokens_BT, 0, lambda _: None, stop), model.device
    )
    size = min(part.settings.batch_size, part.tokens.sequences)
    while True:
        trial = dataclasses.replace(part, settings=dataclasses.replace(part.settings, batch_size=size))
        try:
            _, forward = timed(functools.partial(_forward, model, trial, tokens_BT), model.device)
            return _Piece(plan=part, arrays=arrays, compute=compute, forward=forward)
        except torch.OutOfMemoryError:
            if size == 1:
                raise RunError(
                    f"the logits of one sequence do not fit the memory of {model.device}: take a shorter --seq-len"
                ) from None
            size //= 2


def _forward(model: LoadedModel, part: Plan, tokens_BT: Tokens) -> None:
    """The bare model with all logits."""
    with torch.inference_mode():
        for chosen in batches(part, 0):
            model.bridge(
                torch.from_numpy(tokens_BT[chosen].astype(np.int64)).to(model.device), return_type="logits"
            )


def _part(plan: Plan, num_sequences: int, seq_len: int) -> Plan:
    """A plan of one shard: the first tokens of the first sequences of `plan`."""
    rows = num_sequences * seq_len
    return dataclasses.replace(
        plan,
        settings=dataclasses.replace(plan.settings, rows_per_shard=rows, max_rows=rows, seq_len=seq_len),
        tokens=dataclasses.replace(
            plan.tokens, sequences=num_sequences, sequences_left_out=0, held_out_sequences=None
        ),
    )


def _host_bytes(arrays: shards.Arrays) -> int:
    """The most memory that this process held, without these arrays."""
    return max(0, _peak_bytes() - sum(values.nbytes for values in arrays.values()))


def _device_bytes(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _peak_bytes() -> int:
    """The most memory that this process had at once. (`getrusage` would count the parent's memory too.)"""
    match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


# A model that is too large for one piece


class _StoppedError(Exception):
    """The budget is used; `blocks` of the model's blocks took `took`."""

    def __init__(self, blocks: int, of_blocks: int, took: Took) -> None:
        self.blocks, self.of_blocks, self.took = blocks, of_blocks, took


class _Stop:
    """Called before each block of the model; ends the forward pass once the budget is used and a block has been run."""

    def __init__(self, of_blocks: int, device: torch.device, budget: Budget | None) -> None:
        self._of_blocks, self._device, self._budget = of_blocks, device, budget
        self._calls = 0
        self._clock: Clock | None = None

    def __call__(self) -> None:
        """Raises `_StoppedError`."""
        self._calls += 1
        if self._clock is None:
            self._clock = Clock(self._device)
        elif self._budget is not None and self._calls <= self._of_blocks and not self._budget.left:
            raise _StoppedError(self._calls - 1, self._of_blocks, self._clock.took())


def _by_blocks(model: LoadedModel, part: Plan, stopped: _StoppedError, batch_rows: int) -> ModelRates:
    """The rates where a few blocks stand for all, and few rows for what follows the blocks."""
    arrays, rows = stand_ins(part), min(UNEMBEDDED_ROWS, part.rows)
    final_ND = torch.randn(rows, model.W_U_DV.shape[0], dtype=model.W_U_DV.dtype, device=model.device)
    uniforms_NM = randomness.row_uniforms(
        0, rows, part.settings.tail_samples, part.settings.seed, randomness.TAIL_SAMPLES
    )
    W_U_DV, b_U_V = model.unembedding(part.target_logits)
    with torch.inference_mode():
        _, unembedding = timed(lambda: unembed(final_ND, W_U_DV, b_U_V, part.model.logit_cap), model.device)
        _, targets = timed(
            lambda: target_compression.compress(
                final_ND,
                W_U_DV,
                b_U_V,
                torch.from_numpy(uniforms_NM).to(model.device),
                part.settings.top_k,
                torch.ones(rows, dtype=torch.bool, device=model.device),
                torch.zeros(model.W_U_DV.shape[1], dtype=torch.float64, device=model.device),
                cap=part.model.logit_cap,
            ),
            model.device,
        )
    blocks_s = stopped.took.alone_s * stopped.of_blocks / stopped.blocks / part.rows
    return ModelRates(
        plan=part,
        arrays=arrays,
        forward_s=blocks_s + unembedding.alone_s / rows,
        compute_s=blocks_s + targets.alone_s / rows,
        took=stopped.took + unembedding + targets,
        blocks=(stopped.blocks, stopped.of_blocks),
        batch_rows=batch_rows,
        memory_bytes=_host_bytes(arrays),
        device_bytes=_device_bytes(model.device),
    )
