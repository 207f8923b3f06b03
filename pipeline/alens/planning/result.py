"""The result of `alens plan`: everything that was measured and computed, as an object and as plain numbers.

In: measurements and sizes. Out: `Estimate`. Every number of its JSON document has its unit in its name.
"""

import math
import os
from dataclasses import dataclass
from typing import Any

from alens.heads import Heads
from alens.planning.budget import FREE
from alens.planning.codec_rates import CodecRates
from alens.planning.costs import Costs, FitCosts, break_even, passes_table, rows_of_slowest
from alens.planning.disk import DiskRates, DiskSpace
from alens.planning.fit_estimate import FitEstimate
from alens.planning.fit_heads import every_head
from alens.planning.fit_rates import FitRates, fit_arrays
from alens.planning.model_rates import ModelRates
from alens.planning.sizes import Sizes
from alens.planning.token_count import TextEstimate
from alens.result import Result
from alens.store.arrays import shard_arrays
from alens.store.schema import Plan

COST_MODEL = "P passes: cache c + w + P max(r, g), no cache P (f + g); seconds a row of compute c, write w, read r, fit g, bare forward f"


@dataclass(frozen=True, kw_only=True)
class Estimate(Result):
    """What a cache would take."""

    plan: Plan
    """The plan that `alens cache` would write, without hashes; its number of tokens may be an estimate."""
    device: str
    text: TextEstimate | None
    """None where STORE holds a plan already: its text is tokenised."""
    shards_done: int
    workers: int
    max_minutes: float | None
    sizes: Sizes
    model: ModelRates
    codecs: CodecRates
    disk: DiskRates
    fit: FitRates | None
    """None for a cache of moments alone, which holds nothing to fit to."""
    threads: int
    load: float
    """The load average over the minute before anything was measured."""
    space: DiskSpace
    free_memory_bytes: int
    """Free memory of the device, before anything was loaded."""
    heads: Heads
    """The heads that a fit is estimated for."""

    @property
    def shards_left(self) -> int:
        return self.plan.num_shards - self.shards_done

    @property
    def rows_left(self) -> int:
        return self.shards_left * self.plan.settings.rows_per_shard

    @property
    def memory_bytes(self) -> int:
        """Memory of a worker: the arrays of two shards, one computed while the other is written, and everything else."""
        return self.model.memory_bytes + self._unprobed_bytes + 2 * self.sizes.shard_memory_bytes

    @property
    def _unprobed_bytes(self) -> int:
        """Activations of the sequences by which a batch is larger than the probe; 0 on CUDA, which has its own memory."""
        settings, model = self.plan.settings, self.plan.model
        rows = 0 if self.device.startswith("cuda") else max(0, self.model.batch_rows - self.model.plan.rows)
        further = len(settings.sites or ()) * model.d_model
        kept = len(self.plan.layers) * (model.n_heads * model.d_head + further)
        passing = 6 * model.d_model + 2 * model.n_heads * settings.seq_len  # the MLP's, attention's
        number_bytes = 4 if settings.dtype == "float32" else 2
        return rows * (kept + passing) * number_bytes

    @property
    def cpus_free(self) -> float:
        """How many CPUs the probe of the model got, of one for each thread; all of them on another device."""
        took = self.model.took
        return self.threads * took.alone_s / max(took.wall_s, 1e-9) if took.threads else float(self.threads)

    @property
    def slowdown(self) -> float:
        """How many times as long everything takes beside the work that ran during the probe; 1 on a free machine."""
        share = self.cpus_free / self.threads
        return 1.0 if share >= FREE else 1.0 / share

    def scaled(self) -> dict[str, str]:
        """Which rates were taken from less than the work takes at once, and from what."""
        sources = {"model": self.model.scaled_from}
        if self.fit is not None:
            sources["fit"] = self.fit.scaled_from(self.plan.model.n_heads)
        return {name: source for name, source in sources.items() if source is not None}

    @property
    def costs(self) -> Costs:
        rows = self.plan.settings.rows_per_shard
        commit_s = self.disk.commit_s(self.sizes.shard_bytes, self.sizes.files_a_shard) / rows
        return Costs(
            forward_s=self.model.forward_s,
            compute_s=self.model.compute_s,
            write_s=self.codecs.encode_s + commit_s,
        )

    def fit_costs(self, heads: Heads) -> FitCosts:
        """The costs of fitting `heads` to compressed targets, where the cache holds rows."""
        assert self.fit is not None
        names = set(fit_arrays(self.plan, heads.layers))
        num_bytes = sum(array.bytes_a_row for array in self.sizes.arrays if array.name in names)
        batch_rows = self.fit.settings.batch_rows
        return FitCosts(
            heads=len(heads),
            read_s=num_bytes * self.disk.read_s_a_byte + sum(self.codecs.decode_s[name] for name in names),
            fit_s=sum(self.fit.step_s(len(one), batch_rows) for one in heads.by_layer.values()) / batch_rows,
        )

    def fit_estimate(self, heads: Heads) -> FitEstimate:
        """A default fit of `heads`, where the cache holds rows."""
        assert self.fit is not None
        specs, settings = shard_arrays(self.plan), self.plan.settings
        return FitEstimate(
            plan=self.plan,
            rates=self.fit,
            disk=self.disk,
            heads={layer: len(numbers) for layer, numbers in heads.by_layer.items()},
            shard_bytes=sum(specs[name].row_bytes for name in fit_arrays(self.plan, heads.layers))
            * settings.rows_per_shard,
            on_cpu=not self.device.startswith("cuda"),
            free_memory_bytes=self.free_memory_bytes,
        )

    @property
    def tokenise_hours(self) -> float:
        return self.text.num_tokens / self.text.tokens_a_second / 3600 if self.text else 0.0

    def cache_hours(self, workers: int) -> float:
        """Hours until the slowest of `workers` is done, the tokenising before they start included."""
        rows = rows_of_slowest(self.shards_left, workers, self.plan.settings.rows_per_shard)
        return self.tokenise_hours + self.costs.cache_hours(rows)

    def headline(self) -> str:
        """Size, time and whether the cache fits."""
        return (
            f"cache of {self.plan.rows:,} rows of {self.plan.model.id}, {self.sizes.bytes:,} bytes, "
            f"{self.cache_hours(self.workers):.2g} hours, {'fits' if self.space.shortfall() is None else 'does not fit'}"
        )

    def records(self) -> list[dict[str, Any]]:
        """One record for each array of the cache: its name and sizes."""
        arrays: list[dict[str, Any]] = _bytes(self)["arrays"]
        return arrays

    def to_json(self) -> dict[str, Any]:
        """All numbers, in the order of the work; none is rounded."""
        return {
            "model": self.plan.model.id,
            "corpus": self.plan.corpus.id,
            "device": self.device,
            "text": _text(self),
            "bytes": _bytes(self),
            "rates": _rates(self),
            "time": _time(self),
            "room": self.space.to_json(),
            "fit": None if self.fit is None else self.fit_estimate(self.heads).to_json(),
            "passes": None if self.fit is None else _passes(self),
        }


def _text(estimate: Estimate) -> dict[str, Any]:
    plan, text = estimate.plan, estimate.text
    return {
        "rows": plan.rows,
        "sequences": plan.tokens.sequences,
        "seq_len_tokens": plan.settings.seq_len,
        "bos": plan.tokens.bos,
        "shards": plan.num_shards,
        "rows_per_shard": plan.settings.rows_per_shard,
        "sequences_left_out": plan.tokens.sequences_left_out,
        "max_rows": plan.settings.max_rows,
        "selection": plan.tokens.selection or "all",
        "documents": plan.tokens.documents,
        "held_out_sequences": plan.tokens.held_out_sequences,
        "tokens": text.num_tokens if text else plan.rows,
        "exact": text.exact if text else True,
        "share_of_text_read": text.share_read if text else None,
        "plan_in_store": text is None,
        "shards_committed": estimate.shards_done,
        "shards_left": estimate.shards_left,
        "rows_left": estimate.rows_left,
    }


def _bytes(estimate: Estimate) -> dict[str, Any]:
    sizes = estimate.sizes
    name, largest_bytes = sizes.largest_file
    return {
        "arrays": [
            {
                "name": array.name,
                "first_axis": array.axis,
                "bytes_per_row": array.bytes_a_row if array.axis == "row" else None,
                "bytes_per_file": array.file_bytes,
                "files": array.num_files,
                "bytes": array.bytes,
                "measured": array.measured,
            }
            for array in sizes.arrays
        ],
        "rows_bytes": sizes.bytes_of("row"),
        "statistics_bytes": sizes.bytes_of("shard"),
        "weights_bytes": sum(a.bytes for a in sizes.arrays if a.axis not in ("row", "shard")),
        "tokens_bytes": sizes.tokens_bytes,
        "documents_bytes": sizes.documents_bytes,
        "records_bytes": sizes.num_shards * sizes.record_bytes + sizes.metadata_bytes,
        "bytes": sizes.bytes,
        "bytes_per_shard": sizes.shard_bytes,
        "files": sizes.files,
        "directories": sizes.directories,
        "inodes": sizes.inodes,
        "files_per_shard": sizes.files_a_shard,
        "largest_file": name,
        "largest_file_bytes": largest_bytes,
        "worker_memory_bytes": estimate.memory_bytes,
        "shard_memory_bytes": sizes.shard_memory_bytes,
        "worker_device_memory_bytes": estimate.model.device_bytes,
    }


def _rates(estimate: Estimate) -> dict[str, Any]:
    costs, text, disk = estimate.costs, estimate.text, estimate.disk
    every = every_head(estimate.plan)
    return {
        "probe_rows": estimate.model.plan.rows,
        "forward_rows_per_s": 1 / costs.forward_s,
        "compute_rows_per_s": 1 / costs.compute_s,
        "write_rows_per_s": 1 / costs.write_s,
        "fit_head_rows_per_s": None
        if estimate.fit is None
        else 1 / estimate.fit_costs(every).fit_s * len(every),
        "tokenise_tokens_per_s": text.tokens_a_second if text else None,
        "disk_probe_bytes": disk.probe_bytes,
        "disk_write_bytes_per_s": 1 / disk.write_s_a_byte,
        "disk_read_bytes_per_s": 1 / disk.read_s_a_byte,
        "disk_sync_s": disk.sync_s,
        "hash_bytes_per_s": 1 / disk.hash_s_a_byte,
        "threads": estimate.threads,
        "load": estimate.load,
        "cpus": os.cpu_count(),
        "cpus_free": estimate.cpus_free,
        "slowdown": estimate.slowdown,
        "scaled": estimate.scaled(),
    }


def _time(estimate: Estimate) -> dict[str, Any]:
    costs, rows = estimate.costs, estimate.rows_left
    hours = estimate.cache_hours(estimate.workers)
    jobs = None
    if estimate.max_minutes:
        jobs = max(1, math.ceil(60 * hours / estimate.max_minutes))
    return {
        "tokenise_hours": estimate.tokenise_hours,
        "compute_hours": rows * costs.compute_s / 3600,
        "write_hours": rows * costs.write_s / 3600,
        "cache_hours": estimate.cache_hours(1),
        "workers": estimate.workers,
        "cache_hours_with_workers": hours,
        "max_minutes": estimate.max_minutes,
        "runs_per_worker": jobs,
        "read_hours": None
        if estimate.fit is None
        else estimate.plan.rows * estimate.fit_costs(every_head(estimate.plan)).read_s / 3600,
    }


def _passes(estimate: Estimate) -> dict[str, Any]:
    every = every_head(estimate.plan)
    cases = {f"layer {every.layers[0]}": every.within(every.layers[:1])}
    if len(every.layers) > 1:
        cases[f"{len(every.layers)} layers"] = every
    if estimate.heads != every:
        cases["those named"] = estimate.heads
    costs = estimate.costs
    return {
        "cost_model": COST_MODEL,
        "forward_s_per_row": costs.forward_s,
        "compute_s_per_row": costs.compute_s,
        "write_s_per_row": costs.write_s,
        "cases": [_case(estimate, name, chosen) for name, chosen in cases.items()],
    }


def _case(estimate: Estimate, name: str, heads: Heads) -> dict[str, Any]:
    fit, whole = estimate.fit_costs(heads), estimate.fit_estimate(heads)
    even = break_even(estimate.costs, fit, estimate.rows_left / estimate.plan.rows)
    return {
        "name": name,
        "heads": fit.heads,
        "read_s_per_row": fit.read_s,
        "fit_s_per_row": fit.fit_s,
        "save_bytes": whole.checkpoint_bytes,
        "save_s": whole.save_s,
        "break_even_passes": even if math.isfinite(even) else None,
        "passes": [
            {
                "passes": entry.passes,
                "cached_hours": entry.cached_hours,
                "recomputed_hours": entry.recomputed_hours,
                "ratio": entry.ratio,
            }
            for entry in passes_table(estimate.costs, fit, estimate.plan.rows, estimate.rows_left)
        ],
    }
