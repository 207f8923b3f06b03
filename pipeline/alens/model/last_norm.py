"""The last norm of a loaded model, measured on its module: configuration and name decide nothing.

In: TransformerLens' bridge. Out: `FinalNorm`, or None where the module is neither a layer norm nor an RMS norm with a
gain and an offset. Two opposite inputs give gain and offset, a small input gives the epsilon.
Shapes: D d_model.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch

from alens.rows.final_norm import FinalNorm
from alens.store.model_record import LAYER_NORM, NO_NORM, RMS_NORM, NormRecord

AGREES = 1e-4
"""How far float32 sums may take the module from the measured norm, as a share."""

EPSILON_AGREES = 0.01
"""How far a measured epsilon may be from one that the module names, as a share, for the named one to be taken."""

EPSILON_NAMES = ("eps", "variance_epsilon", "epsilon")

SMALL = 1e-3
"""The size of an input at which the usual epsilons, 1e-12 to 1e-3, change the output by more than float32 rounds."""


def last_norm(bridge: Any, d_model: int) -> FinalNorm | None:
    """The norm before the unembedding, float32; a norm that does nothing where the model has no module for it."""
    component = getattr(getattr(bridge, "ln_final", None), "original_component", None)
    if component is None:
        return FinalNorm.bare(NormRecord(kind=NO_NORM, epsilon=0.0), d_model)
    return measured_norm(component, d_model)


def measured_norm(component: torch.nn.Module, d_model: int) -> FinalNorm | None:
    """The norm that a module is, float32; None where it is neither a layer norm nor an RMS norm."""
    module = copy.deepcopy(component).float().cpu()

    def ask(x_ND: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            answer: torch.Tensor = module(x_ND)
        return answer

    named = [float(getattr(module, name)) for name in EPSILON_NAMES if hasattr(module, name)]
    measured = (_measured(ask, kind, d_model, named) for kind in (LAYER_NORM, RMS_NORM))
    return next((norm for norm in measured if norm is not None), None)


def _measured(
    ask: Callable[[torch.Tensor], torch.Tensor], kind: str, d_model: int, named: list[float]
) -> FinalNorm | None:
    """The norm, if the module is a norm of this kind."""
    generator = torch.Generator().manual_seed(0)
    # No entry is near 0, so that each gives its gain.
    signs_D = torch.randint(0, 2, (d_model,), generator=generator) * 2.0 - 1.0
    probe_D = signs_D * (0.5 + torch.rand(d_model, generator=generator))
    if kind == LAYER_NORM:
        probe_D = probe_D - probe_D.mean()
    probe_D = probe_D / probe_D.pow(2).mean().sqrt()
    plus_D, minus_D, small_D = ask(torch.stack([probe_D, -probe_D, SMALL * probe_D]))
    offset_D, moved_D = (plus_D + minus_D) / 2, (plus_D - minus_D) / 2
    # The output for an input of mean square s^2 is s / sqrt(s^2 + epsilon) of the largest output.
    share = float(((small_D - offset_D).double().norm() / moved_D.double().norm()).square())
    epsilon = max(0.0, SMALL**2 * (1 - share) / (share - SMALL**2)) if SMALL**2 < share <= 1.001 else 0.0
    epsilon = next(
        (one for one in named if abs(one - epsilon) <= EPSILON_AGREES * epsilon), float(f"{epsilon:.3g}")
    )
    norm = FinalNorm(
        record=NormRecord(kind=kind, epsilon=epsilon),
        gain_D=moved_D * (1 + epsilon) ** 0.5 / probe_D,
        offset_D=offset_D,
    )
    others_ND = 3 * torch.randn(8, d_model, generator=generator) + torch.randn(8, 1, generator=generator)
    others_ND = torch.cat([others_ND, SMALL * others_ND])
    answer_ND = ask(others_ND)
    agrees = (norm(others_ND) - answer_ND).norm() <= AGREES * answer_ND.norm()
    return norm if bool(agrees) else None
