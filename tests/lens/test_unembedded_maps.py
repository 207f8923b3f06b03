"""Maps that end in the unembedding: the bias that follows from them, few rows and many, and what files hold."""

from pathlib import Path

import pytest
import torch

from alens.heads import Heads
from alens.lens.directory import LensDirectory
from alens.lens.maps import LayerLenses, LensEnding
from alens.lens.unembedded_maps import UnembeddedMaps

H, E, D, V = 2, 6, 10, 40


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(size: float = 0.15) -> UnembeddedMaps:
    """Maps whose tokens have a common part, as those of a real unembedding do."""
    W_U_DV = normal(D, V, seed=0) + 3 * normal(D, 1, seed=1)
    return UnembeddedMaps(
        translator_HED=size * normal(H, E, D, seed=2),
        shift_HD=torch.zeros(H, D),
        mean_HE=100 * normal(H, E, seed=3),
        scale_HEE=torch.linalg.inv(normal(H, E, E, seed=4)),
        ending=LensEnding.with_mean_output(W_U_DV, normal(V, seed=5).log_softmax(-1)),
    )


def values(ours: UnembeddedMaps, head: int, rows: int) -> torch.Tensor:
    """(N, E) normal z whose moments are those that the maps were made for."""
    return normal(rows, E, seed=6) @ torch.linalg.inv(ours.scale_HEE[head]) + ours.mean_HE[head]


def kl(p_V: torch.Tensor, q_V: torch.Tensor) -> float:
    return float((p_V * (p_V / q_V).log()).sum())


def test_the_bias_gives_the_mean_output_its_place_where_z_is_normal() -> None:
    ours = maps()
    mean_V = ours.ending.log_mean_V.exp()
    z_NE = values(ours, 1, 50_000)
    said_V = ours.logits(1, z_NE).softmax(-1).mean(0)
    weight_EV, _ = ours.affine(1)
    plain_V = (z_NE @ weight_EV - ours.mean_HE[1] @ weight_EV + ours.ending.log_mean_V).softmax(-1).mean(0)
    assert kl(mean_V, said_V) < 0.1 * kl(mean_V, plain_V)


def test_what_all_tokens_have_in_common_changes_no_reading() -> None:
    ours = maps()
    common_D1 = 5 * normal(D, 1, seed=8)
    ending = LensEnding.with_mean_output(ours.ending.W_U_DV + common_D1, ours.ending.log_mean_V)
    other = UnembeddedMaps(**{**vars(ours), "ending": ending})
    z_NE = values(ours, 0, 20)
    torch.testing.assert_close(
        other.logits(0, z_NE).softmax(-1), ours.logits(0, z_NE).softmax(-1), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("size", [0.15, 0.005])
def test_few_rows_say_the_same_as_many(size: float) -> None:
    ours = maps(size)
    z_NE = values(ours, 0, 2 * E)
    many_NV = ours.logits(0, z_NE)
    few_NV = torch.cat([ours.logits(0, z_NE[:3]), ours.logits(0, z_NE[3:4]), ours.logits(0, z_NE[4 : E + 3])])
    assert few_NV.shape[0] < 2 * E
    torch.testing.assert_close(few_NV, many_NV[: len(few_NV)], rtol=1e-4, atol=0.05)


def test_axes_that_add_nothing_are_left_out() -> None:
    ours = maps()
    ours.translator_HED[0, 2:] = ours.translator_HED[0, :1] * 2  # of rank 2
    assert len(ours._axes(0)) == 2 and len(ours._axes(1)) == E


def stored(tmp_path: Path, ours: UnembeddedMaps) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    directory = LensDirectory(tmp_path)
    directory.put_lenses(
        Heads.grid((0,), (0, 1)), [(0, LayerLenses(maps=ours, W_O_HED=torch.ones(H, E, D)))], None
    )
    return {**load_file(directory.layer(0)), **load_file(directory.unembedding)}


def test_files_hold_float16_where_the_numbers_survive_it(tmp_path: Path) -> None:
    tensors = stored(tmp_path, maps())
    halves = {name for name, value in tensors.items() if value.dtype == torch.float16}
    assert halves == {"translator", "shift", "W_O", "W_U"}
    assert tensors["mean"].dtype == tensors["scale"].dtype == torch.float32


@pytest.mark.parametrize("number", [1e5, 1e-7])
def test_a_number_that_float16_cannot_hold_keeps_float32(tmp_path: Path, number: float) -> None:
    ours = maps()
    ours.translator_HED[1, 3] = number
    tensors = stored(tmp_path, ours)
    assert tensors["translator"].dtype == torch.float32 and tensors["W_U"].dtype == torch.float16
    assert torch.equal(tensors["translator"], ours.translator_HED)
