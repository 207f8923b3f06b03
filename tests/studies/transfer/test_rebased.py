"""Values of one head in the coordinates of another: what is undone exactly, and what a lens cannot see."""

import pytest
import torch

from alens.studies.transfer.rebased import MATCHES, Frame, Rebased, seen

HEADS, WIDTH, D_MODEL, ROWS = 3, 4, 16, 200


def frame(seed: int) -> Frame:
    generator = torch.Generator().manual_seed(seed)
    draws_HEE = torch.randn(HEADS, WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    return Frame(
        W_O_HED=torch.randn(HEADS, WIDTH, D_MODEL, generator=generator),
        mean_HE=torch.randn(HEADS, WIDTH, generator=generator),
        covariance_HEE=draws_HEE @ draws_HEE.mT,
    )


def values() -> torch.Tensor:
    return torch.randn(ROWS, HEADS, WIDTH, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("head", range(HEADS))
def test_a_head_on_itself_is_left_as_it_is(match: str, head: int) -> None:
    home, z_NHE = frame(0), values()
    found_NHE = Rebased(source=home, target=home, head=head, match=match)(z_NHE)
    torch.testing.assert_close(found_NHE[:, head], z_NHE[:, head], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("match", MATCHES)
def test_another_basis_of_the_same_head_is_undone(match: str) -> None:
    home, z_NHE = frame(0), values()
    R_EE = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3))).Q
    assert home.W_O_HED is not None
    turned = Frame(
        W_O_HED=R_EE.T @ home.W_O_HED,
        mean_HE=home.mean_HE @ R_EE,
        covariance_HEE=R_EE.T.double() @ home.covariance_HEE @ R_EE.double(),
    )
    found_NHE = Rebased(source=home, target=turned, head=1, match=match)(z_NHE @ R_EE)
    torch.testing.assert_close(found_NHE[:, 1], z_NHE[:, 1], rtol=1e-4, atol=1e-4)


def test_it_is_the_output_through_the_pseudo_inverse() -> None:
    source, target, z_NHE = frame(0), frame(1), values()
    assert source.W_O_HED is not None and target.W_O_HED is not None
    found_NHE = Rebased(source=source, target=target, head=2, match="none")(z_NHE)
    for head in range(HEADS):
        expected = z_NHE[:, 2] @ target.W_O_HED[2] @ torch.linalg.pinv(source.W_O_HED[head])
        torch.testing.assert_close(found_NHE[:, head], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("match", ["mean", "scale"])
def test_the_mean_of_the_target_becomes_that_of_the_source(match: str) -> None:
    source, target = frame(0), frame(1)
    found_1HE = Rebased(source=source, target=target, head=0, match=match)(target.mean_HE[None])
    torch.testing.assert_close(found_1HE[0], source.mean_HE, rtol=1e-4, atol=1e-4)


def test_a_louder_head_is_brought_to_the_scale_of_the_source() -> None:
    home, z_NHE = frame(0), values()
    louder = Frame(W_O_HED=home.W_O_HED, mean_HE=7 * home.mean_HE, covariance_HEE=49 * home.covariance_HEE)
    found_NHE = Rebased(source=home, target=louder, head=1, match="scale")(7 * z_NHE)
    torch.testing.assert_close(found_NHE[:, 1], z_NHE[:, 1], rtol=1e-4, atol=1e-4)
    untouched_NHE = Rebased(source=home, target=louder, head=1, match="none")(7 * z_NHE)
    torch.testing.assert_close(untouched_NHE[:, 1], 7 * z_NHE[:, 1], rtol=1e-4, atol=1e-3)


def test_a_lens_is_blind_to_what_its_head_cannot_write() -> None:
    home, covariance_HEE = frame(0), frame(0).covariance_HEE
    eye_DD, zeros_HE = torch.eye(D_MODEL), torch.zeros(HEADS, WIDTH)
    first, second = (
        Frame(
            W_O_HED=eye_DD[None, at : at + WIDTH].expand(HEADS, -1, -1),
            mean_HE=zeros_HE,
            covariance_HEE=covariance_HEE,
        )
        for at in (0, 8)
    )
    assert not Rebased(source=first, target=second, head=0, match="none")(values()).any()
    shares = [seen(first, other, 0) for other in (second, first)]
    assert [None if share is None else share.tolist() for share in shares] == [
        [0.0] * HEADS,
        pytest.approx([1.0] * HEADS),
    ]
    assert seen(home.without_outputs(), home, 0) is None


def test_values_of_the_residual_stream_stay_as_they_are() -> None:
    stream = Frame(
        W_O_HED=None, mean_HE=torch.ones(1, D_MODEL), covariance_HEE=torch.eye(D_MODEL).double()[None]
    )
    values_N1D = torch.randn(5, 1, D_MODEL)
    assert torch.equal(
        Rebased(source=stream, target=stream, head=0, match="none")(values_N1D), values_N1D.float()
    )
