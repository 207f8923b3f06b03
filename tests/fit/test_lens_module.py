"""The lenses of a fit as one module: losses by layer and head, of all lenses or some of them."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alens.fit.lens_module import LensModule
from alens.fit.objectives.cross_entropy import cross_entropy
from alens.fit.objectives.forward_kl import ForwardKL
from alens.fit.objectives.objective import Objective
from alens.lens.designs.design import Ground
from alens.lens.designs.linear import Linear
from alens.lens.designs.readout import Readout
from alens.lens.designs.summed import Summed
from alens.lens.whitening import Whitening
from alens.rows.teacher import CompressedTeacher, Teacher

H, N, E, V = 3, 8, 2, 11


def ground() -> Ground:
    unit = Whitening(mean_HE=torch.zeros(H, E), scale_HEE=torch.eye(E).expand(H, E, E).clone())
    return Ground(whitening=unit, log_mean_output_V=torch.full((V,), 1 / V).log())


@pytest.fixture
def module() -> LensModule:
    made = LensModule({1: Linear(ground()), 4: Linear(ground())}, ForwardKL())
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += torch.randn(parameter.shape, generator=random)
    return made


def batch() -> tuple[dict[int, torch.Tensor], CompressedTeacher]:
    random = torch.Generator().manual_seed(0)
    z_NHE = {layer: torch.randn(N, H, E, generator=random) for layer in (1, 4)}
    ids_NJ = torch.randint(0, V, (N, 2), generator=random)
    return z_NHE, CompressedTeacher(ids_NJ, torch.full((N, 2), 0.5), torch.zeros(N))


def test_losses_of_some_are_those_of_all_and_0_for_the_others(module: LensModule) -> None:
    whole_LU, some_LU = module(*batch()), module(*batch(), {1: [2, 0], 4: []})
    assert module.layers == (1, 4) and whole_LU.shape == some_LU.shape == (2, H)
    torch.testing.assert_close(some_LU[0, [0, 2]], whole_LU[0, [0, 2]])
    assert some_LU[0, 1] == 0 and bool((some_LU[1] == 0).all())


class Shapes(TorchDispatchMode):
    """The shapes of the tensors that operations made, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not (func.is_view or func._schema.is_mutable):
            self.made[tuple(made.shape)] += 1
        return made


def test_a_step_that_trains_some_heads_copies_no_weights(module: LensModule) -> None:
    with Shapes() as shapes:
        module(*batch(), {1: [2, 0], 4: [1]}).sum().backward()
    assert shapes.made[2, E, V] == shapes.made[1, E, V] == 0
    assert shapes.made[H, E, V] == 2  # the gradients of two layers


def test_an_objective_that_reads_weights_gets_those_of_its_losses(module: LensModule) -> None:
    class Plain(Objective):
        def loss(self, readout: Readout, teacher: Teacher) -> torch.Tensor:
            return cross_entropy(readout.features_UNF, readout.weight_UFV, readout.bias_UV, teacher)

    module.design(1).requires_grad_()
    losses, gradients = [], []
    for objective in (ForwardKL(), Plain()):
        module.objective = objective
        losses.append(module(*batch(), {1: [2, 0]}))
        gradients.append(torch.autograd.grad(losses[-1].sum(), list(module.parameters())))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_layer_that_is_not_named_trains_all_of_its_own(module: LensModule) -> None:
    torch.testing.assert_close(module(*batch(), {1: []})[1], module(*batch())[1])


def test_every_parameter_has_a_gradient_also_where_nothing_is_trained(module: LensModule) -> None:
    """DeepSpeed reduces gradients of all parameters: one that is None would hang it."""
    module(*batch(), {1: [0], 4: []}).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        trained = parameter.grad.flatten(1).ne(0).any(1).tolist()
        assert trained == [name.startswith("designs.1"), False, False], name


def test_a_summed_layer_has_one_loss() -> None:
    made = LensModule({1: Summed(ground())}, ForwardKL())
    assert made(*batch()).shape == (1, 1)
    assert made(*batch(), {1: []}).tolist() == [[0.0]]
