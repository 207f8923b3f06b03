"""A forward pass that keeps what backward passes need: how the residual stream before the last norm moves with z.

In: tokens, and the layers whose z is moved. Out: for a probe, a vector at each position of the stream, the gradients of its
product with the stream by z of every head and layer at once. Parameters are frozen (`models.load`), so that no gradient
of them is made, and the blocks below the lowest layer keep nothing.
Shapes: B sequences, T tokens, H heads, E d_head, D d_model.
"""

from collections.abc import Sequence
from typing import Any

import torch

from alens.errors import RequestError
from alens.model import activations
from alens.model.models import LoadedModel
from alens.store.model_record import NO_NORM


class GradientPass:
    """One forward pass. Attributes: `layers`; `stream_BTD`, the residual stream before the last norm."""

    def __init__(self, model: LoadedModel, tokens_BT: torch.Tensor, layers: Sequence[int]) -> None:
        """Run the model. Raises `RequestError` where TransformerLens does not give z, the stream or gradients."""
        self.layers = tuple(sorted(layers))
        z_BTHE: dict[int, torch.Tensor] = {}
        stream: list[torch.Tensor] = []

        def on_z(layer: int) -> Any:
            def hook(value_BTHE: torch.Tensor, hook: Any) -> torch.Tensor:
                if not value_BTHE.requires_grad:  # of the lowest layer: gradients end here
                    value_BTHE = value_BTHE.detach().requires_grad_()
                z_BTHE[layer] = value_BTHE
                return value_BTHE

            return hook

        def on_stream(value_BTD: torch.Tensor, hook: Any) -> None:
            stream.append(value_BTD)

        hooks = [(f"blocks.{layer}.attn.hook_z", on_z(layer)) for layer in self.layers]
        architecture = model.source.record.architecture
        has_norm = model.final_norm is not None and model.final_norm.record.kind != NO_NORM
        try:
            with torch.enable_grad():
                final_BTD, _ = activations.run_hooked(
                    model, tokens_BT, [*hooks, ("ln_final.hook_in", on_stream)] if has_norm else hooks
                )
        except KeyError as error:  # a hook name that the bridge does not know
            raise RequestError(
                f"{architecture} lacks what Jacobians need in TransformerLens: {error}"
            ) from None
        self.stream_BTD = stream[0] if stream else final_BTD
        self._z = [z_BTHE[layer] for layer in self.layers if layer in z_BTHE]
        if len(self._z) < len(self.layers) or not self.stream_BTD.requires_grad:
            raise RequestError(f"{architecture} gives no gradients by z of its heads in TransformerLens")

    @property
    def d_head(self) -> int:
        return self._z[0].shape[-1]

    @property
    def device(self) -> torch.device:
        return self.stream_BTD.device

    def gradients(self, probe_BTD: torch.Tensor) -> dict[int, torch.Tensor]:
        """By layer (B, T, H, E), the gradients by z of the sum over positions of stream times probe: those by z at a position
        add up what it moves there and at all later positions."""
        parts = torch.autograd.grad(
            self.stream_BTD,
            self._z,
            probe_BTD.to(self.stream_BTD.dtype),
            retain_graph=True,
            materialize_grads=True,
        )
        return dict(zip(self.layers, parts, strict=True))
