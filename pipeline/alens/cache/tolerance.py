"""How far rounding may take a stored number from the same number computed again.

In: a plan, computed values. Out: the largest difference that storing and another order of summing explain.

Storing. float16 keeps 11 significant bits, so its half unit is 2^-11 of a value, and 2^-25 near zero. `keep_bits` b
rounds again, to 2^-(b+1) of a value. int8 keeps a value to within half of the scale of its row and head, and decoding
rounds to float16 once more.

Summing. Another batch, thread count or device adds the same terms in another order. The error of a float32 sum of n
terms is about sqrt(n) 2^-24 of its largest terms; the longest sum in a block has 4 d_model terms. A model in bfloat16
or float16 sums in float32 and rounds each result to its own 8 or 11 bits. A block is about 8 such operations one after
the other, and their errors add up like a random walk:

    noise = MARGIN sqrt(8 layers) unit,  unit = 2^-24 sqrt(4 d_model), or 2^-8, 2^-11 for the 16-bit dtypes

of the largest value of the row. On the demo, float32 was measured to differ from float64 by 1.1e-5 at most, and noise
is 7.5e-5. Logits move by noise times the largest logit of the row.
"""

import torch

from alens.store.schema import Plan

HALF_UNIT, SMALLEST_HALF_UNIT = 2.0**-11, 2.0**-25
"""Half the distance of two float16 numbers: relative, and absolute near zero."""


def noise(plan: Plan) -> float:
    """The share of a row's largest value that summing in another order may change."""
    return plan.model.rounding(plan.settings.dtype)


def for_float16(values: torch.Tensor, plan: Plan, *, rounded: bool) -> torch.Tensor:
    """The tolerance of (N, ...) values that are stored as float16; `rounded` where `keep_bits` rounds them too."""
    relative, absolute = HALF_UNIT, SMALLEST_HALF_UNIT
    if rounded and plan.settings.keep_bits is not None:
        relative += 2.0 ** -(plan.settings.keep_bits + 1) * (1 + HALF_UNIT)
        absolute += 2.0 ** -(plan.settings.keep_bits + 15)
    return relative * values.abs() + absolute + noise(plan) * largest(values)


def for_int8(z_NHE: torch.Tensor, scale_NH: torch.Tensor, plan: Plan) -> torch.Tensor:
    """The tolerance of z that is stored as int8 with `scale_NH`; it is float16 before, and again when decoded."""
    steps = 0.5 * scale_NH[..., None]
    return for_float16(z_NHE, plan, rounded=False) + steps + HALF_UNIT * (z_NHE.abs() + steps)


def for_scale(needed_NH: torch.Tensor, z_NHE: torch.Tensor, plan: Plan) -> torch.Tensor:
    """The tolerance of the scales, 1/127 of the largest z of a row and head, rounded up to float16."""
    return 4 * HALF_UNIT * needed_NH + 4 * SMALLEST_HALF_UNIT + noise(plan) * largest(z_NHE)[..., 0] / 127


def for_logits(logits_NV: torch.Tensor, plan: Plan) -> torch.Tensor:
    """The tolerance of the logits of each row, (N,)."""
    return noise(plan) * logits_NV.abs().amax(1).clamp_min(1.0)


def largest(values: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of each row, (N, 1, ...)."""
    largest_N = values.abs().flatten(1).amax(1)
    return largest_N.view(-1, *(1,) * (values.dim() - 1))
