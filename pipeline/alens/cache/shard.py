"""One shard, from tokens to arrays: a pure function of the plan and the shard's number.

In: the plan, `tokens.npy`, the loaded model. Out: one numpy array for every array of the plan, rows permuted. The peak
of memory is the arrays of one shard and one batch.
Shapes: N rows, B sequences, T tokens, H heads, E d_head, D d_model, K top-k, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.cache import target_compression
from alens.cache.row_collector import BatchArrays, RowCollector
from alens.cache.shard_moments import moments_of_shard, sums_with_final
from alens.machine.blocks import logit_blocks
from alens.machine.device import send
from alens.model import activations
from alens.model.models import LoadedModel
from alens.rows.moment_sums import FinalSums, MomentSums
from alens.store import encoding
from alens.store.arrays import FINAL_SCALE, WRITE_SCALE, scale_name, shard_arrays, site_name, statistic_name
from alens.store.schema import Plan

Arrays = dict[str, npt.NDArray[Any]]

CENTRED_FINAL = "centred final residual"
"""The name under which it goes to the CPU with z; it is not stored."""


def compute(
    model: LoadedModel,
    plan: Plan,
    tokens_BT: npt.NDArray[Any],
    shard: int,
    after_batch: Callable[[int], None],
    within_batch: Callable[[], None] = lambda: None,
) -> Arrays:
    """All arrays of one shard. `after_batch` is called with the number of rows done, and `within_batch` before each
    block of the model and of logits; both may raise to stop.

    Raises `RunError` when an activation does not fit float16.
    """
    with activations.before_blocks(model, within_batch):
        if plan.settings.moments_only:
            return moments_of_shard(model, plan, tokens_BT, batches(plan, shard), after_batch, within_batch)
        return _Shard(model, plan, shard, within_batch).compute(tokens_BT, after_batch)


def batches(plan: Plan, shard: int) -> Iterator[slice]:
    """The sequences of each forward pass of a shard; a batch never spans two shards."""
    first = shard * plan.settings.sequences_per_shard
    end = first + plan.settings.sequences_per_shard
    for start in range(first, end, plan.settings.batch_size):
        yield slice(start, min(end, start + plan.settings.batch_size))


class _Shard:
    """A shard that is being computed."""

    def __init__(self, model: LoadedModel, plan: Plan, shard: int, before_logits: Callable[[], None]) -> None:
        self.model, self.plan, self.shard, self.before_logits = model, plan, shard, before_logits
        self.settings = plan.settings
        self.first_row = shard * self.settings.rows_per_shard
        self.out: Arrays = {
            spec.name: np.empty(spec.shard_shape(), spec.dtype) for spec in shard_arrays(plan).values()
        }
        self.place_N = np.argsort(
            randomness.permutation(
                self.settings.rows_per_shard, self.settings.seed, randomness.ROW_ORDER, shard
            )
        )
        d_head, d_model, T = plan.model.d_head, plan.model.d_model, plan.settings.seq_len
        self.final = FinalSums(d_model, model.device, T) if self.settings.final_moments else None
        self.centred_ND: torch.Tensor | None = None
        """What `final` gave for the rows whose z is placed next, where z is encoded."""
        self.moments = {
            layer: MomentSums(
                plan.model.n_heads, d_head, T, model.device, d_model if self.final is not None else None
            )
            for layer in plan.layers
        }
        self.output_V = torch.zeros(plan.model.d_vocab, dtype=torch.float64, device=model.device)
        self.workspace = target_compression.Workspace()
        self.encoded = self.settings.z_dtype != "float16" or self.settings.keep_bits is not None
        self.sites = {site_name(layer): layer for layer in plan.layers}

    def compute(self, tokens_BT: npt.NDArray[Any], after_batch: Callable[[int], None]) -> Arrays:
        check_finite = functools.partial(activations.check_finite, self.model)
        collector = RowCollector(self.model.device, self.settings.keep_bits, self._place, check_finite)
        for chosen in batches(self.plan, self.shard):
            batch_BT = torch.from_numpy(tokens_BT[chosen].astype(np.int64))
            with torch.inference_mode():
                collector.put(self._batch(chosen, batch_BT))
            after_batch(chosen.stop * self.settings.seq_len - self.first_row)
        collector.finish()
        self.out["stats/output"][0] = self.output_V.cpu().numpy()
        for layer, moments in self.moments.items():
            sum_HE, outer_HEE = moments.sums()
            self.out[statistic_name(layer, "sum")][0] = sum_HE.cpu().numpy()
            self.out[statistic_name(layer, "outer")][0] = outer_HEE.cpu().numpy()
        if self.final is not None:
            for name, values in sums_with_final(self.final, self.moments).items():
                self.out[name][0] = values.cpu().numpy()
        return self.out

    def _batch(self, chosen: slice, batch_BT: torch.Tensor) -> BatchArrays:
        """Run one forward pass, and return what is stored of it."""
        T = self.settings.seq_len
        rows = np.arange(chosen.start * T, chosen.stop * T)
        at_N = self.place_N[rows - self.first_row]
        sites, on_cpu = self.settings.sites or (), self.model.device.type == "cpu"
        forward = activations.run(self.model, batch_BT, self.plan.layers, sites, checked=on_cpu)
        if chosen.start == self.shard * self.settings.sequences_per_shard:
            activations.check_unembedding(self.model, forward)
        final_ND = forward.final_BTD.flatten(0, 1)
        whole = self._whole(forward)
        centred_ND = None if self.final is None else self.final.add(final_ND)
        values = {name: value.half() for (name, _), value in whole.items()}
        if not self.encoded:
            for name, layer in self.sites.items():
                self.moments[layer].add(values[name], centred_ND)
        elif centred_ND is not None:  # first, for the sums of z when it is encoded
            values = {CENTRED_FINAL: centred_ND, **values}
        values.update(self._targets(final_ND, rows))
        if self.plan.model.keeps_norm:
            assert forward.scale_BT is not None  # the plan was made with this model
            values[FINAL_SCALE] = forward.scale_BT.flatten()
        if self.plan.model.keeps_write_scale:
            scales = [forward.write_scale_BT[layer].flatten() for layer in self.plan.layers]
            values[WRITE_SCALE] = torch.stack(scales, dim=1)
        self.out["rows/token"][at_N] = batch_BT.flatten().numpy()
        self.out["rows/sequence"][at_N] = rows // T
        self.out["rows/position"][at_N] = rows % T
        largest = {what: _largest(value) for (_, what), value in whole.items()}
        finite = None if on_cpu else torch.isfinite(final_ND).all()
        return BatchArrays(values=values, largest=largest, finite=finite, at_N=at_N)

    def _whole(self, forward: activations.Activations) -> dict[tuple[str, str], torch.Tensor]:
        """(N, ...) values that are stored as float16, by the name of their array and, for messages, what they are."""
        whole = {(site_name(i), f"z of layer {i}"): z.flatten(0, 1) for i, z in forward.z_BTHE.items()}
        for (site, layer), value_BTD in forward.sites_BTD.items():
            whole[site_name(layer, site), f"{site} of layer {layer}"] = value_BTD.flatten(0, 1)
        if self.settings.exact_teacher:
            whole["targets/final", "the final residual"] = forward.final_BTD.flatten(0, 1)
        return whole

    def _targets(self, final_ND: torch.Tensor, rows: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """The target arrays of these rows, on the model's device."""
        settings, device = self.settings, self.model.device
        uniforms_NM = randomness.row_uniforms(
            int(rows[0]), len(rows), settings.tail_samples, settings.seed, randomness.TAIL_SAMPLES
        )
        uniforms = send(uniforms_NM, device)
        W_U_DV, b_U_V = self.model.unembedding(self.plan.target_logits)
        counted_N = send(rows % settings.seq_len > 0, device)
        blocks = []
        for part in logit_blocks(len(rows), self.plan.model.d_vocab, device):
            self.before_logits()
            blocks.append(
                target_compression.compress(
                    final_ND[part],
                    W_U_DV,
                    b_U_V,
                    uniforms[part],
                    settings.top_k,
                    counted_N[part],
                    self.output_V,
                    self.workspace,
                    cap=self.plan.model.logit_cap,
                )
            )
        return {
            "targets/ids": torch.cat([block.ids_NK for block in blocks]),
            "targets/log_probs": torch.cat([block.log_probs_NK for block in blocks]).half(),
            "targets/logsumexp": torch.cat([block.logsumexp_N for block in blocks]),
            "targets/entropy": torch.cat([block.entropy_N for block in blocks]),
            "targets/tail_ids": torch.cat([block.tail_ids_NM for block in blocks]),
        }

    def _place(self, name: str, values: npt.NDArray[Any], at_N: npt.NDArray[np.int64]) -> None:
        """Encode values that came from the device, and put them into their rows."""
        if name == CENTRED_FINAL:
            self.centred_ND = torch.from_numpy(values)
            return
        layer = self.sites.get(name)
        if self.settings.z_dtype == "int8" and layer is not None:
            values, scale_NH = encoding.quantise(values)
            self.out[scale_name(layer)][at_N] = scale_NH
            self.moments[layer].add(torch.from_numpy(encoding.dequantise(values, scale_NH)), self.centred_ND)
        elif self.settings.keep_bits is not None and name.startswith("sites/"):
            values = encoding.round_bits(values, self.settings.keep_bits)
            if layer is not None:
                self.moments[layer].add(torch.from_numpy(values), self.centred_ND)
        self.out[name][at_N] = values


def _largest(values: torch.Tensor) -> torch.Tensor:
    """The largest magnitude, or NaN where a value is NaN; stays on the device."""
    low, high = torch.aminmax(values)
    return torch.maximum(-low, high)
