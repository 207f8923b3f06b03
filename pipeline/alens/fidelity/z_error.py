"""The error of z, and of what a head writes with it, in forms that are coarser than the stored one.

In: rows of a cache and a form. Out: for each head, the root mean square of the error divided by that of the stored
values: for z, and for the head's output `z W_O`, which is what a reader of the residual stream sees; and the error of z
divided by its spread.
Shapes: N rows, L layers, H heads, E d_head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alens.fidelity.forms import ZForm
from alens.fidelity.sample import RowSample
from alens.job.progress import Report, ShouldStop, counted, never, silent

Errors = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MeanAndWorst:
    """The mean of a figure over heads, and the largest value."""

    mean: float
    worst: float
    worst_head: str
    """`layer.head`"""

    @classmethod
    def over(cls, values: Sequence[float], names: Sequence[str]) -> "MeanAndWorst":
        worst = int(np.argmax(values))
        return cls(mean=float(np.mean(values)), worst=float(values[worst]), worst_head=names[worst])


@dataclass(frozen=True, kw_only=True)
class ZError:
    """Relative root mean square errors of a form of z."""

    z: MeanAndWorst
    output: MeanAndWorst
    """Error of the head output z W_O."""
    spread: MeanAndWorst
    """The error of z beside the spread of z around its mean over rows, which is what a lens reads: large where the mean
    of a head is far above its spread."""


def z_errors(
    sample: RowSample, forms: Sequence[ZForm], report: Report = silent, should_stop: ShouldStop = never
) -> dict[ZForm, ZError] | None:
    """The errors of every form, over all cached heads; None when `should_stop` says so."""
    cache = sample.cache
    W_O_LHED = cache.weights("W_O").astype(np.float64)
    names = [f"{layer}.{head}" for layer in cache.plan.layers for head in range(cache.plan.model.n_heads)]
    errors: dict[ZForm, list[tuple[Errors, Errors, Errors]]] = {form: [] for form in forms}
    for layer in counted(cache.plan.layers, report, "error of z", "layers"):
        z_NHE = sample.z(layer)
        # ||e W_O||^2 = e (W_O W_O^T) e^T: E x E numbers a head instead of E x D.
        gram_HEE = W_O_LHED[layer] @ W_O_LHED[layer].swapaxes(1, 2)
        for form in forms:
            if should_stop():
                return None
            errors[form].append(relative_errors(z_NHE, form.decoded(z_NHE, layer), gram_HEE))
    return {form: _over_heads(parts, names) for form, parts in errors.items()}


def _over_heads(parts: Sequence[tuple[Errors, Errors, Errors]], names: Sequence[str]) -> ZError:
    """From the errors of each layer."""
    z, output, spread = (
        MeanAndWorst.over(np.concatenate(errors_H).tolist(), names) for errors_H in zip(*parts, strict=True)
    )
    return ZError(z=z, output=output, spread=spread)


def relative_errors(
    z_NHE: npt.NDArray[np.float16], decoded_NHE: npt.NDArray[np.float16], gram_HEE: Errors
) -> tuple[Errors, Errors, Errors]:
    """(H,) for z, (H,) for z W_O, and (H,) for z beside its spread; 0 where the stored values or their spread are 0."""
    z_HNE = z_NHE.astype(np.float64).swapaxes(0, 1)
    error_HNE = decoded_NHE.astype(np.float64).swapaxes(0, 1) - z_HNE
    error_H, spread_HNE = (error_HNE**2).sum((1, 2)), z_HNE - z_HNE.mean(1, keepdims=True)
    return (
        _ratio(error_H, (z_HNE**2).sum((1, 2))),
        _ratio(_output_squares(error_HNE, gram_HEE), _output_squares(z_HNE, gram_HEE)),
        _ratio(error_H, (spread_HNE**2).sum((1, 2))),
    )


def _output_squares(values_HNE: Errors, gram_HEE: Errors) -> Errors:
    return np.asarray(((values_HNE @ gram_HEE) * values_HNE).sum((1, 2)))


def _ratio(error_H: Errors, whole_H: Errors) -> Errors:
    return np.sqrt(np.divide(error_H, whole_H, out=np.zeros_like(error_H), where=whole_H > 0))
