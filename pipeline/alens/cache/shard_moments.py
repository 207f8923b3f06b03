"""One shard of a cache of moments alone: sums over its rows, and none of the rows.

In: the plan, `tokens.npy`, the loaded model, the batches of a shard. Out: one numpy array for every array of the plan. Z is
summed as the model gives it, not as float16. The mean output takes a product with `W_U` and V exponentials a row, more than
all sums together, so only some of the rows count in it.
Shapes: N rows, B sequences, T tokens, H heads, E d_head, D d_model, V vocabulary.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.errors import RunError
from alens.machine.blocks import logit_blocks, row_blocks
from alens.machine.device import send
from alens.machine.products import unembed
from alens.model import activations
from alens.model.models import LoadedModel
from alens.rows.moment_sums import FinalSums, MomentSums
from alens.store import encoding
from alens.store.arrays import OUTPUT_ROWS, shard_arrays, statistic_name
from alens.store.schema import Plan

ENOUGH_ROWS = 1024
"""In a smaller shard every row counts in the mean output."""


def moments_of_shard(
    model: LoadedModel,
    plan: Plan,
    tokens_BT: npt.NDArray[Any],
    batches: Iterable[slice],
    after_batch: Callable[[int], None],
    before_logits: Callable[[], None],
) -> dict[str, npt.NDArray[Any]]:
    """All arrays of one shard. Raises `RunError` where a value is not finite."""
    sums = _Sums(model, plan, before_logits)
    rows = 0
    for number, chosen in enumerate(batches):
        batch_BT = torch.from_numpy(tokens_BT[chosen].astype(np.int64))
        with torch.inference_mode():
            # Where it is not finite the sums are not, which is seen at the end.
            forward = activations.run(model, batch_BT, plan.layers, checked=model.device.type == "cpu")
            if number == 0:
                activations.check_unembedding(model, forward)
            sums.add(forward, chosen)
        rows += batch_BT.numel()
        after_batch(rows)
    return sums.arrays()


def sums_with_final(final: FinalSums, layers: Mapping[int, MomentSums]) -> dict[str, torch.Tensor]:
    """What is kept of z with the final residual, by array, without the axis of shards."""
    made = {
        "stats/final/sum": final.mean_D * final.rows,
        "stats/final/squares": final.variance_D.clamp(min=0) * final.rows,
    }
    for layer, of_layer in layers.items():
        cross_HED, scale_H = encoding.scaled((of_layer.cross(final) * final.rows).cpu().numpy())
        made[statistic_name(layer, "cross")] = torch.from_numpy(cross_HED)
        made[statistic_name(layer, "cross_scale")] = torch.from_numpy(scale_H)
    return made


class _Sums:
    """The sums of one shard while they grow."""

    def __init__(self, model: LoadedModel, plan: Plan, before_logits: Callable[[], None]) -> None:
        self.model, self.plan, self.before_logits = model, plan, before_logits
        T, record = plan.settings.seq_len, plan.model
        self.rows = plan.settings.sequences_per_shard * (T - 1)
        self.share = 1 / OUTPUT_ROWS if self.rows >= ENOUGH_ROWS else 1.0
        self.counted = 0
        self.final = FinalSums(record.d_model, model.device, T)
        self.layers = {
            layer: MomentSums(record.n_heads, record.d_head, T, model.device, record.d_model)
            for layer in plan.layers
        }
        self.output_V = torch.zeros(record.d_vocab, dtype=torch.float64, device=model.device)

    def add(self, forward: activations.Activations, chosen: slice) -> None:
        """Add one forward pass, of the sequences `chosen`."""
        final_ND = forward.final_BTD.flatten(0, 1)
        centred_ND = self.final.add(final_ND)
        for layer, of_layer in self.layers.items():
            # Taken out, so that no layer is kept longer than it is needed.
            of_layer.add(forward.z_BTHE.pop(layer).flatten(0, 1), centred_ND)
        self._add_output(final_ND[self._counted(chosen)])

    def _counted(self, chosen: slice) -> torch.Tensor:
        """The rows of a forward pass that count in the mean output, by the seed and the row's number alone."""
        T, seed = self.plan.settings.seq_len, self.plan.settings.seed
        rows = np.arange(chosen.start * T, chosen.stop * T)
        drawn_N = randomness.row_uniforms(int(rows[0]), len(rows), 1, seed, randomness.OUTPUT_ROWS)[:, 0]
        counted = np.flatnonzero((drawn_N < self.share) & (rows % T > 0))
        self.counted += len(counted)
        return send(counted, self.model.device)

    def _add_output(self, final_ND: torch.Tensor) -> None:
        device, (W_U_DV, b_U_V) = self.model.device, self.model.unembedding(self.plan.target_logits)
        for part in logit_blocks(len(final_ND), len(b_U_V), device):
            self.before_logits()
            logits_NV = unembed(final_ND[part], W_U_DV, b_U_V, self.plan.model.logit_cap)
            for rows in row_blocks(len(logits_NV), device):
                weights_NV = logits_NV[rows]
                weights_NV -= weights_NV.amax(1, keepdim=True)
                weights_NV.exp_()
                self.output_V += (1 / weights_NV.sum(1)) @ weights_NV

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is stored. Products with the final residual are around the means of the shard, for float32."""
        sums = {"stats/output": self.output_V * (self.rows / self.counted)}
        for layer, of_layer in self.layers.items():
            sum_HE, outer_HEE = of_layer.sums()
            sums[statistic_name(layer, "sum")] = sum_HE
            sums[statistic_name(layer, "outer")] = outer_HEE
        sums.update(sums_with_final(self.final, self.layers))
        specs = shard_arrays(self.plan)
        for name, tensor in sums.items():
            if not bool(tensor.isfinite().all()):
                raise RunError(f"{name} is not finite: check the model's weights and dtype")
        return {name: tensor.cpu().numpy()[None].astype(specs[name].dtype) for name, tensor in sums.items()}
