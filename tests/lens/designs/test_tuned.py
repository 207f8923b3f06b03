"""The Tuned Lens: where it starts, what it becomes, and which values it reads."""

from typing import Any

import pytest
import torch

from alens.errors import RequestError
from alens.lens.designs.readout import Readout
from alens.lens.designs.tuned import Tuned
from alens.rows.final_norm import FinalNorm
from alens.store.model_record import NormRecord


def logits(readout: Readout) -> torch.Tensor:
    return readout.logits(0, slice(None))


def test_it_starts_as_the_logit_lens(ground: Any, stream: torch.Tensor) -> None:
    design = Tuned(ground(stream))
    W_U_DV, b_U_V = design.ground.unembedding()
    stream_ND = stream[:, 0].double()
    centred_ND = stream_ND - stream_ND.mean(-1, keepdim=True)
    normed_ND = centred_ND / (centred_ND.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = normed_ND @ W_U_DV.double() + b_U_V.double()
    torch.testing.assert_close(design(stream, logits).double(), expected, rtol=1e-3, atol=1e-3)


def test_it_starts_with_the_norm_of_the_model(ground: Any, stream: torch.Tensor) -> None:
    random = torch.Generator().manual_seed(4)
    norm = FinalNorm(
        record=NormRecord(kind="rms", epsilon=1e-6),
        gain_D=1 + torch.rand(6, generator=random),
        offset_D=torch.zeros(6),
    )
    design = Tuned(ground(stream, final_norm=lambda: norm))
    W_U_DV, b_U_V = design.ground.unembedding()
    stream_ND = stream[:, 0].double()
    normed_ND = stream_ND / (stream_ND.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.gain_D
    expected = normed_ND @ W_U_DV.double() + b_U_V.double()
    torch.testing.assert_close(design(stream, logits).double(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(design.maps().logits(0, stream[:, 0]).double(), expected, rtol=1e-3, atol=1e-3)


def test_trained_maps_give_the_logits_of_the_readout(
    ground: Any, stream: torch.Tensor, disturbed: Any
) -> None:
    design = Tuned(ground(stream))
    disturbed(design)
    maps = design.maps()
    assert maps.form == "translated" and maps.num_heads == 1
    expected = design(stream, logits).detach()
    torch.testing.assert_close(maps.logits(0, stream[:, 0]), expected, rtol=1e-3, atol=1e-3)


def test_every_parameter_is_trained(ground: Any, stream: torch.Tensor, disturbed: Any) -> None:
    design = Tuned(ground(stream))
    disturbed(design)
    design(stream, lambda readout: logits(readout).square().sum()).backward()
    for name, parameter in design.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_values_of_another_width_than_the_stream_are_refused(ground: Any, values: torch.Tensor) -> None:
    with pytest.raises(RequestError, match="6 wide, and these values are 4 wide: take --site resid_post"):
        Tuned(ground(values))
