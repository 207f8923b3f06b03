"""How fast this machine runs the model, the codecs and a fit, measured on the first sequences of the text.

In: the loaded model, a `Plan`, tokens. Out: `ModelRates`, `CodecRates`, seconds of a fit. The timed code is
the code that does the work: `alens.cache.shard.compute` on as many sequences as the time allows, the codecs
of the store in memory, and a step of `LensModule` with the optimiser of a fit on a few heads.
Shapes: N rows, B sequences, T tokens, H heads, E d_head, V vocabulary.
"""

import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from alens.cache import shard as shards
from alens.cache.shard import batches
from alens.errors import RunError
from alens.fit.lens_module import LensModule
from alens.fit.objectives.forward_kl import ForwardKL
from alens.fit.optimiser import AveragedAdam
from alens.fit.settings import FitSettings
from alens.lens.designs.design import Ground
from alens.lens.designs.linear import Linear
from alens.lens.whitening import Whitening
from alens.model.models import LoadedModel
from alens.rows import moments
from alens.rows.teacher import CompressedTeacher
from alens.store import writer
from alens.store.arrays import scale_name, shard_arrays, site_name, statistic_name
from alens.store.cache_reader import Targets, log_shares
from alens.store.encoding import dequantise
from alens.store.paths import StorePaths
from alens.store.schema import Plan

HEADS = 2
"""Heads that are fitted to measure the cost of one, which is the same for each."""

Tokens = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ModelRates:
    """The model on this device."""

    plan: Plan
    """The plan of the rows that were run, as one shard."""
    arrays: shards.Arrays
    """The arrays of that shard."""
    forward_s: float
    """Seconds a row of the bare model, with all logits."""
    compute_s: float
    """Seconds a row of `alens.cache.shard.compute`."""
    memory_bytes: int
    """The most memory that this process held while it computed, without the arrays of the probe."""
    device_bytes: int | None
    """The most memory that tensors took on a CUDA device; None on a CPU."""


def model_rates(model: LoadedModel, plan: Plan, tokens_BT: Tokens, probe_s: float) -> ModelRates:
    """Time the bare model and the computing of a shard, about `probe_s` seconds each, on at most all of `tokens_BT`.

    Raises what `alens cache` would raise on this model.
    """
    num_sequences, took_s = 1, 0.0
    part = _first(plan, 1)
    for attempt in range(8):
        part = _first(plan, num_sequences)
        since = time.monotonic()
        arrays = shards.compute(model, part, tokens_BT[:num_sequences], 0, lambda _: None)
        took_s = time.monotonic() - since
        if attempt and (took_s >= probe_s / 3 or num_sequences == len(tokens_BT)):
            break  # the first attempt only warms up
        if attempt:
            num_sequences = _more(num_sequences, took_s, probe_s, plan.settings.batch_size, len(tokens_BT))
    peak_bytes = _peak_bytes()
    device_bytes = torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else None
    return ModelRates(
        plan=part,
        arrays=arrays,
        forward_s=_forward_s(model, part, tokens_BT, probe_s),
        compute_s=took_s / part.rows,
        memory_bytes=max(0, peak_bytes - sum(values.nbytes for values in arrays.values())),
        device_bytes=device_bytes,
    )


def _peak_bytes() -> int:
    """The most memory that this process had at once. (`getrusage` would count the parent's memory too.)"""
    match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


def _more(num_sequences: int, took_s: float, probe_s: float, batch_size: int, most: int) -> int:
    """As many sequences as fit into `probe_s` at the rate so far, in whole batches once there is more than one."""
    wanted = max(num_sequences + 1, int(num_sequences * probe_s / max(took_s, 1e-6)))
    if wanted > batch_size:
        wanted -= wanted % batch_size
    return min(wanted, most)


def _first(plan: Plan, num_sequences: int) -> Plan:
    """A plan of one shard: the first sequences of `plan`."""
    rows = num_sequences * plan.settings.seq_len
    return dataclasses.replace(
        plan,
        settings=dataclasses.replace(plan.settings, rows_per_shard=rows, max_rows=rows),
        tokens=dataclasses.replace(
            plan.tokens, sequences=num_sequences, sequences_left_out=0, held_out_sequences=None
        ),
    )


def _forward_s(model: LoadedModel, plan: Plan, tokens_BT: Tokens, probe_s: float) -> float:
    """Seconds a row of the model alone, on smaller batches where the logits of one do not fit into memory."""
    size = min(plan.settings.batch_size, plan.tokens.sequences)
    while True:
        trial = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, batch_size=size))
        try:
            return _timed_forward(model, trial, tokens_BT, probe_s)
        except torch.OutOfMemoryError:
            if size == 1:
                raise RunError(
                    f"the logits of one sequence do not fit the memory of {model.device}: take a shorter --seq-len"
                ) from None
            size //= 2


def _timed_forward(model: LoadedModel, plan: Plan, tokens_BT: Tokens, probe_s: float) -> float:
    rows, since = 0, 0.0
    with torch.inference_mode():
        for number, chosen in enumerate([slice(0, 1), *batches(plan, 0)]):  # the first one warms up
            batch_BT = torch.from_numpy(tokens_BT[chosen].astype(np.int64)).to(model.device)
            model.bridge(batch_BT, return_type="logits")
            synchronise(model.device)
            if number == 0:
                since = time.monotonic()
                continue
            rows += batch_BT.numel()
            if time.monotonic() - since > probe_s:
                break
    return (time.monotonic() - since) / rows


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all the work in its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, kw_only=True)
class CodecRates:
    """The codecs of the store, measured in memory on real values."""

    encode_s: float
    """Seconds a row, over all arrays."""
    decode_s: dict[str, float]
    """Seconds a row, by array."""
    stored_share: dict[str, float]
    """Bytes on disk for a byte of values, by compressed array."""


def codec_rates(rates: ModelRates) -> CodecRates:
    """Encode and decode the computed arrays as shard files in memory."""
    memory, rows = MemoryStore(), rates.plan.rows
    encode_s, decode_s, stored_share = 0.0, {}, {}
    for name, spec in shard_arrays(rates.plan).items():
        values = rates.arrays[name]
        array = writer.create_array(memory, spec).with_config({"write_empty_chunks": True})
        since = time.monotonic()
        array[...] = values
        encoded = time.monotonic()
        np.asarray(array[...])
        decode_s[name] = (time.monotonic() - encoded) / rows
        encode_s += encoded - since
        if spec.compressed:
            key = f"{name}/{StorePaths.shard_key(0, len(spec.shape))}"
            stored_share[name] = sync(memory.getsize(key)) / values.nbytes
    return CodecRates(encode_s=encode_s / rows, decode_s=decode_s, stored_share=stored_share)


def fit_arrays(plan: Plan, layers: Sequence[int]) -> list[str]:
    """Names of the arrays that a fit of `layers` to compressed targets reads."""
    names = [site_name(layer) for layer in layers]
    if plan.settings.z_dtype == "int8":
        names += [scale_name(layer) for layer in layers]
    targets = ("ids", "log_probs", "logsumexp", "entropy", "tail_ids")
    return [*names, *(f"targets/{name}" for name in targets), "rows/position"]


def fit_s(rates: ModelRates, device: torch.device, probe_s: float) -> float:
    """Seconds that a fit takes for one row of one head: whitening, loss, gradient, optimiser, at the default batch size."""
    arrays, plan = rates.arrays, rates.plan
    layer, num_heads = plan.layers[0], min(HEADS, plan.model.n_heads)
    z_NHE = arrays[site_name(layer)]
    if plan.settings.z_dtype == "int8":
        z_NHE = dequantise(z_NHE, arrays[scale_name(layer)])
    batch_rows = FitSettings.batch_rows
    chosen = np.resize(np.arange(plan.rows), batch_rows)  # the rows of a short probe are repeated
    z = {layer: torch.from_numpy(z_NHE[chosen][:, :num_heads]).to(device)}
    module = _module(arrays, layer, num_heads, device).to(device)
    optimizer = AveragedAdam(module.parameters(), lr=Linear.default_lr)
    teacher = _teacher(arrays, chosen, device)
    steps, since = 0, 0.0
    for number in range(1000):
        loss_LH = module(z, teacher)
        loss_LH.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronise(device)
        if number == 0:  # the first step allocates Adam's state
            since = time.monotonic()
            continue
        steps += 1
        if time.monotonic() - since > probe_s:
            break
    return (time.monotonic() - since) / (steps * batch_rows * num_heads)


def _module(arrays: shards.Arrays, layer: int, num_heads: int, device: torch.device) -> LensModule:
    counted = max(1, int((arrays["rows/position"] > 0).sum()))
    sum_HE, outer_HEE = (arrays[statistic_name(layer, which)][0, :num_heads] for which in ("sum", "outer"))
    mean_HE, covariance_HEE = moments.of_sums(sum_HE, outer_HEE, counted)
    ground = Ground(
        whitening=Whitening.from_moments(mean_HE, covariance_HEE).to(device),
        log_mean_output_V=torch.from_numpy(log_shares(arrays["stats/output"][0])).to(device),
        layer=layer,
    )
    return LensModule({layer: Linear(ground)}, ForwardKL())


def _teacher(arrays: shards.Arrays, rows: npt.NDArray[np.int64], device: torch.device) -> CompressedTeacher:
    targets = Targets(
        ids_NK=arrays["targets/ids"][rows],
        log_probs_NK=arrays["targets/log_probs"][rows],
        logsumexp_N=arrays["targets/logsumexp"][rows],
        entropy_N=arrays["targets/entropy"][rows],
        tail_ids_NM=arrays["targets/tail_ids"][rows],
    )
    return CompressedTeacher.from_targets(targets, device)
