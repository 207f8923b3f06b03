"""One shard, from tokens to arrays: a pure function of the plan and the shard's number.

In: the plan, `tokens.npy`, the loaded model. Out: one numpy array for every array of the plan, rows
permuted. Peak memory is one shard's arrays and one batch.
Shapes: N rows, B sequences, T tokens, H heads, E d_head, D d_model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.blocks import row_blocks
from alens.cache import activations, targets
from alens.cache.model import Subject
from alens.cache.plan import batches
from alens.errors import RunError
from alens.store.arrays import shard_arrays, site_name, statistic_name
from alens.store.schema import Plan

Arrays = dict[str, npt.NDArray[Any]]

FLOAT16_LARGEST = 65_504.0


def compute(
    subject: Subject, plan: Plan, tokens_BT: npt.NDArray[Any], shard: int, after_batch: Callable[[int], None]
) -> Arrays:
    """All arrays of one shard. `after_batch` is called with the rows done; it may raise to stop.

    Raises `RunError` when an activation does not fit float16.
    """
    settings, T = plan.settings, plan.settings.seq_len
    first_row = shard * settings.rows_per_shard
    place_N = np.argsort(
        randomness.permutation(settings.rows_per_shard, settings.seed, randomness.ROW_ORDER, shard)
    )
    out: Arrays = {
        spec.name: np.empty(spec.shard_shape(), spec.dtype) for spec in shard_arrays(plan).values()
    }
    output_V = torch.zeros(plan.model.d_vocab, dtype=torch.float64, device=subject.device)
    for chosen in batches(plan, shard):
        batch_BT = torch.from_numpy(tokens_BT[chosen].astype(np.int64))
        rows = np.arange(chosen.start * T, chosen.stop * T)
        at = place_N[rows - first_row]
        with torch.inference_mode():
            found = activations.run(subject, batch_BT, plan.layers)
            if chosen.start == shard * settings.sequences_per_shard:
                activations.check_unembedding(subject, found)
            for layer, z_BTHE in found.z_BTHE.items():
                name = site_name(layer)
                out[name][at] = _float16(z_BTHE.flatten(0, 1), f"z of layer {layer}")
            final_ND = found.final_BTD.flatten(0, 1)
            if settings.exact_teacher:
                out["targets/final"][at] = _float16(final_ND, "the final residual")
            _put_targets(out, subject, plan, final_ND, rows, at, output_V)
        out["rows/token"][at] = batch_BT.flatten().numpy()
        out["rows/sequence"][at] = rows // T
        out["rows/position"][at] = rows % T
        after_batch(int(rows[-1]) + 1 - first_row)
    out["stats/output"][0] = output_V.cpu().numpy()
    counted = torch.from_numpy(out["rows/position"].astype(np.int64)) > 0
    for layer in plan.layers:
        _put_statistics(out, layer, counted)
    return out


def _put_targets(
    out: Arrays,
    subject: Subject,
    plan: Plan,
    final_ND: torch.Tensor,
    rows: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    output_V: torch.Tensor,
) -> None:
    settings = plan.settings
    uniforms_NM = randomness.row_uniforms(
        int(rows[0]), len(rows), settings.tail_samples, settings.seed, randomness.TAIL_SAMPLES
    )
    uniforms = torch.from_numpy(uniforms_NM).to(subject.device)
    counted_N = torch.from_numpy(rows % settings.seq_len > 0).to(subject.device)
    for part in row_blocks(len(rows), subject.device):
        block = targets.compress(
            final_ND[part],
            subject.W_U_DV,
            subject.b_U_V,
            uniforms[part],
            settings.top_k,
            counted_N[part],
            output_V,
        )
        for name, values in (
            ("ids", block.ids_NK),
            ("log_probs", block.log_probs_NK),
            ("logsumexp", block.logsumexp_N),
            ("entropy", block.entropy_N),
            ("tail_ids", block.tail_ids_NM),
        ):
            out[f"targets/{name}"][at[part]] = values.cpu().numpy()


def _put_statistics(out: Arrays, layer: int, counted_N: torch.Tensor) -> None:
    """Sums of the stored (rounded) z over rows at position 1 and later, in float64."""
    z_HNE = torch.from_numpy(out[site_name(layer)])[counted_N].transpose(0, 1).double()
    out[statistic_name(layer, "sum")][0] = z_HNE.sum(1).numpy()
    out[statistic_name(layer, "outer")][0] = torch.bmm(z_HNE.transpose(1, 2), z_HNE).numpy()


def _float16(values: torch.Tensor, what: str) -> npt.NDArray[np.float16]:
    """To float16 on the CPU. Raises `RunError` for what float16 cannot hold."""
    largest = float(values.abs().max())
    if not largest < FLOAT16_LARGEST:
        raise RunError(
            f"{what} reaches {largest}, which float16 cannot hold: check the model's weights and dtype"
        )
    array: npt.NDArray[np.float16] = values.half().cpu().numpy()
    return array
