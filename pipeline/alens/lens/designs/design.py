"""What a design is: a parametrisation of the lenses of one layer, trained on white values of a site.

In: a `Ground`, all that a design may build on. Out: in training a `Readout` (features, weight and bias of every
loss), afterwards `LensMaps` that act on the values as they are. To write your own design, subclass `AffineDesign` and
give `affine()`, or subclass `Design` for more freedom; docs/plug-ins.md shows one.
Shapes: N rows, H heads, U losses (H, or 1 where heads share one), E width of the site's values, F features of a
readout, D d_model, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from alens import randomness
from alens.errors import RequestError
from alens.lens.closed_form import ClosedForm
from alens.lens.designs.readout import Readout, unit_index
from alens.lens.maps import AffineMaps, LensEnding, LensMaps
from alens.lens.whitening import Whitening
from alens.machine.blocks import slices
from alens.rows.final_norm import FinalNorm

T = TypeVar("T")

WEIGHT_BYTES = 2**28
"""Bytes of the E x V weights that a `ProductDesign` makes at a time: 21 heads at V = 49,152 and d_head 64."""

TYPICAL_R2 = 0.1
"""What a head of a real model explains of the final residual: a head like this has the pace 1."""

PACES = 0.1, 2.0
"""The slowest and the fastest pace: a head without R2 would not move, and one with all of it would be thrown about."""


def _no_unembedding() -> tuple[torch.Tensor, torch.Tensor]:
    raise RequestError("this design needs the model's unembedding, and none was given")


def _no_norm() -> FinalNorm:
    raise RequestError("this design needs the model's last norm, and none was given")


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a design starts from, for one layer."""

    whitening: Whitening
    """The whitening of the site's values: H heads of width E."""
    log_mean_output_V: torch.Tensor
    """The log of the model's mean output: what a lens says when it ignores its input."""
    unembedding: Callable[[], tuple[torch.Tensor, torch.Tensor]] = _no_unembedding
    """Gives `W_U` and `b_U`. They are large, so they are read only where a design asks for them."""
    final_norm: Callable[[], FinalNorm] = _no_norm
    """Gives the model's last norm, on the device; read only where a design asks for it."""
    layer: int = 0
    seed: int = 0
    pace_H: torch.Tensor | None = None
    """(H,) float32: how fast the parameters of each head move, for designs that ask; None: all alike, at 1."""
    made: dict[str, Any] = field(default_factory=dict)
    """What `once` has made; one dictionary for all layers of a fit."""

    @property
    def W_U_DV(self) -> torch.Tensor:
        return self.unembedding()[0]

    @property
    def b_U_V(self) -> torch.Tensor:
        return self.unembedding()[1]

    @property
    def ending(self) -> LensEnding:
        """The unembedding and the mean output, which lenses of all layers may end in."""
        return self.once("ending", lambda: LensEnding.with_mean_output(self.W_U_DV, self.log_mean_output_V))

    @property
    def num_heads(self) -> int:
        return self.whitening.mean_HE.shape[0]

    @property
    def width(self) -> int:
        """E."""
        return self.whitening.mean_HE.shape[1]

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, made once in a fit, for values that depend on neither the layer nor parameters.

        Designs themselves are made anew for every layer at each held-out evaluation.
        """
        if name not in self.made:
            self.made[name] = make()
        value: T = self.made[name]
        return value

    def paced(self, closed: ClosedForm) -> "Ground":
        """The same, where heads that know more move faster."""
        pace_H = torch.from_numpy(closed.r2_H / TYPICAL_R2).sqrt().clamp(*PACES).float()
        return replace(self, pace_H=pace_H.to(self.log_mean_output_V.device))

    @property
    def pace_H11(self) -> torch.Tensor:
        """(H, 1, 1) the pace of each head."""
        if self.pace_H is None:
            return self.log_mean_output_V.new_ones(self.num_heads, 1, 1, dtype=torch.float32)
        return self.pace_H[:, None, None]

    def random(self, *shape: int) -> torch.Tensor:
        """Standard normal draws; the same seed and layer give the same draws on every device."""
        generator = torch.Generator().manual_seed(
            randomness.derived_seed(self.seed, randomness.DESIGN_START, self.layer)
        )
        return torch.randn(*shape, generator=generator).to(self.log_mean_output_V.device)


class Design(nn.Module):
    """The lenses of one layer's heads, in training."""

    default_lr: ClassVar[float] = 0.03
    """The learning rate of the first steps where none is given: one that does not diverge."""

    closed_form_lr: ClassVar[float] = 0.01
    """The same for a fit that starts at the closed form, near its end."""

    trained: ClassVar[bool] = True
    """False for a design that is whole at its start: it has no parameters, no `readout`, and takes no step."""

    starts_at_closed_form: ClassVar[bool] = False
    """Whether `start_at` is written."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self.ground = ground

    @property
    def num_losses(self) -> int:
        """U: one loss for each head, unless heads share one."""
        return self.ground.num_heads

    def forward(
        self,
        z_NHE: torch.Tensor,
        use: Callable[[Readout], T],
        units: list[int] | None = None,
        *,
        losses: bool = False,
    ) -> T:
        """`use(readout)`, for all losses or for `units`.

        What needs the readout runs inside this call, so that ZeRO-3 may gather parameters before it and free them after.
        With `losses`, `use` gives a loss for each unit that it gets, and a design may call it for some of them at a time.
        """
        readout = self.readout(self.ground.whitening.white(z_NHE))
        return use(readout if units is None else readout.select(units))

    def start_at(self, closed: ClosedForm) -> None:
        """Start at the closed form of these heads. Called once, before the first step."""
        raise NotImplementedError

    def readout(self, white_HNE: torch.Tensor) -> Readout:
        """The readout of white values, (H, N, E) float32."""
        raise NotImplementedError

    def maps(self) -> LensMaps:
        """The fitted maps, which act on the values as they are; detached. Parameters must be whole."""
        raise NotImplementedError

    def nothing(self) -> LensMaps | None:
        """Maps in the form of `maps()` that say the mean output whatever they read; None where the form cannot."""
        return None


class AffineDesign(Design):
    """A design whose lenses are affine in z."""

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, E, V) weight and (H, V) bias on white values, differentiable."""
        raise NotImplementedError

    def readout(self, white_HNE: torch.Tensor) -> Readout:
        return Readout(white_HNE, *self.affine())

    def maps(self) -> LensMaps:
        with torch.no_grad():
            weight_HEV, bias_HV = self.ground.whitening.fold(*(part.float() for part in self.affine()))
        return AffineMaps(weight_HEV=weight_HEV, bias_HV=bias_HV)

    def nothing(self) -> LensMaps | None:
        """Maps with zero weights, where each head has a loss of its own; else None."""
        H, E, log_mean_V = self.ground.num_heads, self.ground.width, self.ground.log_mean_output_V.float()
        if self.num_losses != H:
            return None
        return AffineMaps(
            weight_HEV=log_mean_V.new_zeros(H, E, len(log_mean_V)), bias_HV=log_mean_V.repeat(H, 1)
        )


class ProductDesign(AffineDesign):
    """An affine design whose weights are products of small parameters, each (H, ...): every head has its own.

    The weights of some heads are made, used and dropped, and their gradient is turned into that of the parameters at
    once: those of all heads of a fit would take as much memory as the fit of a linear lens.
    """

    def affine_of(self, *parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, E, V) weight and (H, V) bias on white values, from parameters of some heads in the order of definition."""
        raise NotImplementedError

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.affine_of(*self.parameters())

    def forward(
        self,
        z_NHE: torch.Tensor,
        use: Callable[[Readout], T],
        units: list[int] | None = None,
        *,
        losses: bool = False,
    ) -> T:
        if not losses:
            return super().forward(z_NHE, use, units)
        white_HNE = self.ground.whitening.white(z_NHE)
        heads = list(range(self.ground.num_heads)) if units is None else units
        at_once = max(1, WEIGHT_BYTES // (4 * self.ground.width * len(self.ground.log_mean_output_V)))
        parts = [
            self._losses(white_HNE, use, heads[some]) for some in slices(len(heads), at_once) or [slice(0)]
        ]
        return torch.cat(parts)  # type: ignore[return-value]  # a loss for each head

    def _losses(
        self, white_HNE: torch.Tensor, use: Callable[[Readout], Any], heads: list[int]
    ) -> torch.Tensor:
        def work(*parameters: torch.Tensor) -> torch.Tensor:
            loss_U: torch.Tensor = use(Readout(white_HNE.index_select(0, at_U), *self.affine_of(*parameters)))
            return loss_U

        at_U = unit_index(tuple(heads), white_HNE.device)
        parameters = [parameter.index_select(0, at_U) for parameter in self.parameters()]
        if not (torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters)):
            return work(*parameters)
        losses: torch.Tensor = _GradientAtOnce.apply(work, *parameters)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return losses


class _GradientAtOnce(torch.autograd.Function):
    """Losses of a function of parameters, (U, ...) each, of which loss u depends on row u alone. Their gradients are made
    in forward, so that nothing else is kept until backward."""

    @staticmethod
    def forward(ctx: Any, work: Callable[..., torch.Tensor], *parameters: torch.Tensor) -> torch.Tensor:
        own = [parameter.detach().requires_grad_() for parameter in parameters]
        with torch.enable_grad():
            loss_U = work(*own)
            ctx.gradients = torch.autograd.grad(loss_U.sum(), own)
        return loss_U.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (scale_U,) = incoming
        gradients, ctx.gradients = ctx.gradients, None
        return None, *(part * scale_U.to(part.dtype).view(-1, *[1] * (part.ndim - 1)) for part in gradients)


def small(scale: float, fan_in: int) -> float:
    """The standard deviation of random entries that keep the size of what they multiply, times `scale`."""
    return scale / math.sqrt(fan_in)
