"""What holds for every design: readout and maps agree, some of the losses are those of all, and all is trained."""

from typing import Any

import pytest
import torch

from alens.errors import RequestError
from alens.fit import plugin
from alens.lens.designs import DESIGNS
from alens.lens.designs import design as design_module
from alens.lens.designs.design import Design, Ground
from alens.lens.designs.readout import Readout


def make(name: str, ground: Ground) -> Design:
    return plugin.make("lens", name, plugin.find("lens", name, DESIGNS, Design), {}, ground)


@pytest.fixture(params=[name for name in DESIGNS if name not in ("tuned", "summed", "regression")])
def design(request: Any, ground: Any, values: torch.Tensor) -> Design:
    """A design with a loss for each head that reads z."""
    if request.param == "low-rank":
        design = plugin.find("lens", "low-rank", DESIGNS, Design)
        return plugin.make("lens", "low-rank", design, {"rank": 2}, ground(values))
    return make(request.param, ground(values))


def logits(readout: Readout) -> torch.Tensor:
    """(U, N, V)."""
    return torch.stack([readout.logits(unit, slice(None)) for unit in range(len(readout.bias_UV))])


def test_the_maps_say_of_values_what_the_readout_says(
    design: Design, values: torch.Tensor, disturbed: Any
) -> None:
    disturbed(design)
    maps = design.maps()
    folded = torch.stack([maps.logits(head, values[:, head]) for head in range(maps.num_heads)])
    torch.testing.assert_close(folded, design(values, logits).detach(), rtol=1e-4, atol=1e-4)


def test_some_of_the_losses_are_those_of_their_heads(
    design: Design, values: torch.Tensor, disturbed: Any
) -> None:
    disturbed(design)
    torch.testing.assert_close(design(values, logits, [1]), design(values, logits)[1:])


def test_every_parameter_is_trained(design: Design, values: torch.Tensor, disturbed: Any) -> None:
    disturbed(design)
    design(values, lambda readout: logits(readout).square().sum()).backward()
    for name, parameter in design.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_heads_share_no_parameter(design: Design, values: torch.Tensor, disturbed: Any) -> None:
    disturbed(design)
    design(values, lambda readout: logits(readout)[0].square().sum()).backward()
    assert all(bool((parameter.grad[1] == 0).all()) for parameter in design.parameters())


def test_maps_do_not_change_with_later_steps(design: Design, disturbed: Any) -> None:
    before = design.maps()
    kept = {name: value.clone() for name, value in before.tensors().items()}
    disturbed(design)
    assert all(torch.equal(value, kept[name]) for name, value in before.tensors().items())


@pytest.mark.parametrize("name", ["translator", "tuned"])
def test_a_design_that_ends_in_the_unembedding_says_so(name: str, values: torch.Tensor, ground: Any) -> None:
    bare = ground(values)
    bare = Ground(whitening=bare.whitening, log_mean_output_V=bare.log_mean_output_V)
    with pytest.raises(RequestError, match="needs the model's unembedding"):
        make(name, bare)


def test_random_draws_depend_on_seed_and_layer_alone(values: torch.Tensor, ground: Any) -> None:
    first = ground(values, seed=1, layer=2).random(5)
    assert torch.equal(first, ground(values, seed=1, layer=2).random(5))
    assert not torch.equal(first, ground(values, seed=1, layer=3).random(5))
    assert not torch.equal(first, ground(values, seed=2, layer=2).random(5))
    # a seed and a layer are not one number, and any seed that a fit takes will do
    assert not torch.equal(first, ground(values, seed=0, layer=1002).random(5))
    assert len(ground(values, seed=2**63 - 1, layer=2).random(5)) == 5


def product(name: str, ground: Ground) -> Design:
    """A design whose weights are products; of rank 2 where that is an option."""
    options = {"rank": 2} if name == "low-rank" else {}
    return plugin.make("lens", name, plugin.find("lens", name, DESIGNS, Design), options, ground)


@pytest.mark.parametrize("name", ["translator", "low-rank"])
@pytest.mark.parametrize("units", [None, [1], []])
@pytest.mark.parametrize("at_a_time", [1, 2])
def test_gradients_that_are_made_at_once_are_those_of_autograd(
    ground: Any,
    values: torch.Tensor,
    disturbed: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    units: list[int] | None,
    at_a_time: int,
) -> None:
    monkeypatch.setattr(design_module, "WEIGHT_BYTES", at_a_time * 4 * 4 * 17)
    scale_U = torch.tensor([0.5, 3.0])
    gradients, losses = [], []
    for forward in (type(product(name, ground(values))).forward, Design.forward):
        design = product(name, ground(values))
        disturbed(design)

        def loss(readout: Readout) -> torch.Tensor:
            logits_UNV = torch.baddbmm(readout.bias_UV[:, None], readout.features_UNF, readout.weight_UFV)
            return logits_UNV.log_softmax(-1)[..., 3].mean(1)

        loss_U = forward(design, values, loss, units, losses=True)
        (loss_U * (scale_U if units is None else scale_U[units])).sum().backward()
        gradients.append([parameter.grad for parameter in design.parameters()])
        losses.append(loss_U)
    torch.testing.assert_close(*losses)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_weights_of_some_heads_are_made_at_a_time(
    ground: Any, values: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(design_module, "WEIGHT_BYTES", 4 * 4 * 17)
    sizes: list[int] = []

    def loss(readout: Readout) -> torch.Tensor:
        sizes.append(len(readout.weight_UFV))
        return readout.weight_UFV.sum((1, 2)) + readout.bias_UV.sum(1)

    make("translator", ground(values))(values, loss, losses=True).sum().backward()
    assert sizes == [1, 1]
