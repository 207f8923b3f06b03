"""The lenses of a fit as one torch module: values of a site in, the loss of every lens out.

Shapes: N rows, L layers, H heads, U losses (one for each head, or one for the layer; those of the layer with most), E width of the site's values.
"""

from collections.abc import Mapping

import torch
from torch import nn

from alens.fit.objectives.objective import Objective
from alens.lens.designs.design import Design
from alens.lens.designs.readout import Readout, unit_index
from alens.lens.maps import LensMaps
from alens.rows.teacher import Teacher, keeping_blocks

Active = Mapping[int, list[int]]
"""By layer, which losses are still trained; a layer that is not named trains all of its losses."""


class LensModule(nn.Module):
    """One design for each layer, and the loss that they share."""

    def __init__(self, designs: Mapping[int, Design], objective: Objective) -> None:
        super().__init__()
        self.designs = nn.ModuleDict({str(layer): design for layer, design in designs.items()})
        self.objective = objective

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(int(layer) for layer in self.designs)

    def forward(
        self, z_NHE: Mapping[int, torch.Tensor], teacher: Teacher, active: Active | None = None
    ) -> torch.Tensor:
        """(L, U) float32: the mean loss of each lens over the rows; 0 for a lens that is no longer trained, and behind the
        losses of a layer that has fewer than another."""
        losses = []
        if len(self.layers) > 1:
            teacher = keeping_blocks(teacher)
        for layer in self.layers:
            design = self.design(layer)
            units = None if active is None else active.get(layer)
            if units is None or len(units) == design.num_losses:
                losses.append(
                    design(z_NHE[layer], lambda readout: self.objective.loss(readout, teacher), losses=True)
                )
            else:
                losses.append(self._some(design, z_NHE[layer], teacher, units))
        return nn.utils.rnn.pad_sequence(losses, batch_first=True)

    def _some(self, design: Design, z_NHE: torch.Tensor, teacher: Teacher, units: list[int]) -> torch.Tensor:
        def use(readout: Readout) -> torch.Tensor:
            if units:
                return self.objective.loss(readout, teacher)
            # sums of nothing: every parameter keeps a gradient, which DeepSpeed reduces
            parts = (readout.features_UNF, readout.weight_UFV, readout.bias_UV)
            return torch.stack([part.float().sum() for part in parts]).sum().expand(0)

        some: torch.Tensor = design(z_NHE, use, units, losses=True)
        places_U = unit_index(tuple(units), some.device)
        return some.new_zeros(design.num_losses).index_copy(0, places_U, some)

    def maps(self, layer: int) -> LensMaps:
        """The maps of a layer, which act on the values as they are. The parameters must be gathered."""
        return self.design(layer).maps()

    def design(self, layer: int) -> Design:
        """The design of a layer."""
        design = self.designs[str(layer)]
        assert isinstance(design, Design)
        return design
