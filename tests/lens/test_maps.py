"""Maps of a fitted lens: their tensors, the choice of heads, and their logits."""

import dataclasses

import pytest
import torch

from alens.errors import RequestError
from alens.lens.lens_forms import AFFINE_FORMS, FORMS
from alens.lens.maps import AffineMaps, LayerLenses, LensEnding, LensMaps, Shared, TranslatedMaps
from alens.store.model_record import NormRecord

H, N, E, D, V = 3, 5, 4, 6, 11
RANDOM = torch.Generator().manual_seed(0)
W_U, B_U = torch.randn(D, V, generator=RANDOM), torch.randn(V, generator=RANDOM)
LOG_MEAN = torch.randn(V, generator=RANDOM).log_softmax(-1)
ENDING = LensEnding.with_mean_output(W_U, LOG_MEAN)
SHARED = Shared(unembedding=lambda: (W_U, B_U), ending=lambda: ENDING)


def made(form: str, seed: int = 1) -> LensMaps:
    """Random maps, made of their own shapes."""
    random = torch.Generator().manual_seed(seed)
    shapes = FORMS[form].shapes(H, E, D, V)
    tensors = {name: torch.randn(*shape, generator=random) for name, shape in shapes.items()}
    return FORMS[form].from_tensors(tensors, SHARED)


def says(maps: LensMaps) -> torch.Tensor:
    """(H, N, V) for the same values."""
    z_NE = torch.randn(N, E, generator=torch.Generator().manual_seed(9)).half()
    return torch.stack([maps.logits(head, z_NE) for head in range(maps.num_heads)])


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=1e-4)


every_form = pytest.mark.parametrize("form", FORMS)


@every_form
def test_tensors_have_the_shapes_and_come_back(form: str) -> None:
    maps = made(form)
    tensors = maps.tensors()
    assert {name: tuple(value.shape) for name, value in tensors.items()} == maps.shapes(H, E, D, V)
    again = FORMS[form].from_tensors(tensors, SHARED)
    assert again.form == form and torch.equal(says(again), says(maps))


@every_form
def test_chosen_heads_come_in_the_order_asked_for(form: str) -> None:
    maps = made(form)
    assert torch.equal(says(maps.select([2, 0])), says(maps)[[2, 0]])


@every_form
def test_put_changes_these_heads_and_no_other(form: str) -> None:
    maps, other = made(form), made(form, seed=2)
    before = says(maps)
    maps.put([2, 0], other.select([2, 0]))
    assert torch.equal(says(maps)[[0, 2]], says(other)[[0, 2]])
    assert torch.equal(says(maps)[1], before[1])


@every_form
def test_what_was_chosen_does_not_change_with_the_rest(form: str) -> None:
    maps = made(form)
    chosen = maps.select([0])
    before = says(chosen)
    maps.put([0], made(form, seed=2).select([0]))
    assert torch.equal(says(chosen), before)


@every_form
def test_every_tensor_moves_to_the_device(form: str) -> None:
    moved = made(form).to(torch.device("meta"))
    assert {value.device.type for value in vars(moved).values() if isinstance(value, torch.Tensor)} == {
        "meta"
    }
    assert moved.form == form


def test_affine_is_z_times_weight_plus_bias() -> None:
    maps = made("affine")
    assert isinstance(maps, AffineMaps)
    z_NE = torch.randn(N, E, generator=torch.Generator().manual_seed(9)).half()
    expected = z_NE.double() @ maps.weight_HEV[1].double() + maps.bias_HV[1].double()
    torch.testing.assert_close(says(maps)[1].double(), expected, rtol=1e-5, atol=1e-5)


def test_translated_is_a_map_the_norm_and_the_unembedding() -> None:
    maps = made("translated")
    assert isinstance(maps, TranslatedMaps)
    z_NE = torch.randn(N, E, generator=torch.Generator().manual_seed(9)).half()
    moved_ND = z_NE.double() @ maps.translator_HED[1].double() + maps.shift_HD[1].double()
    normed_ND = (moved_ND - moved_ND.mean(-1, keepdim=True)) / moved_ND.std(-1, correction=0, keepdim=True)
    final_ND = normed_ND * maps.gain_HD[1] + maps.offset_HD[1]
    torch.testing.assert_close(says(maps)[1].double(), final_ND @ W_U.double() + B_U, rtol=1e-3, atol=1e-3)


def test_translated_has_the_norm_of_its_model() -> None:
    maps = made("translated")
    assert isinstance(maps, TranslatedMaps)
    rms = dataclasses.replace(maps, norm=NormRecord(kind="rms", epsilon=1e-6))
    z_NE = torch.randn(N, E, generator=torch.Generator().manual_seed(9))
    moved_ND = z_NE.double() @ maps.translator_HED[1].double() + maps.shift_HD[1].double()
    final_ND = (
        moved_ND / moved_ND.square().mean(-1, keepdim=True).sqrt() * maps.gain_HD[1] + maps.offset_HD[1]
    )
    expected = final_ND @ W_U.double() + B_U
    torch.testing.assert_close(rms.logits(1, z_NE).double(), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(maps.logits(1, z_NE), rms.logits(1, z_NE), rtol=1e-2)


@every_form
def test_the_logits_of_chosen_tokens_are_those_among_all(form: str) -> None:
    close(says(made(form).columns([7, 2])), says(made(form))[..., [7, 2]])


@every_form
def test_folded_maps_say_the_same(form: str) -> None:
    close(says(made(form).folded()), says(made(form)))


@pytest.mark.parametrize("form", AFFINE_FORMS)
def test_weight_and_bias_say_the_same_as_the_logits(form: str) -> None:
    maps = made(form)
    lenses = LayerLenses(maps=maps, W_O_HED=None)
    z_NE = torch.randn(N, E, generator=torch.Generator().manual_seed(9)).half().float()
    for head in range(H):
        close(z_NE @ lenses.weight_HEV[head] + lenses.bias_HV[head], says(maps)[head])


def test_translated_maps_have_no_weight() -> None:
    for look in (
        lambda: made("translated").affine(0),
        lambda: LayerLenses(maps=made("translated"), W_O_HED=None).bias_HV,
    ):
        with pytest.raises(RequestError, match="'translated' have no weight and bias: use their logits"):
            look()


def test_the_ending_is_moved_once_for_all_layers() -> None:
    elsewhere = torch.device("meta")
    first, second = (made("unembedded", seed).to(elsewhere) for seed in (1, 2))
    assert first.ending is second.ending and first.ending.W_U_DV.is_meta  # type: ignore[attr-defined]
