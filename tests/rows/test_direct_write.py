"""The direct write of a head is what the final normed residual loses when the head's z is replaced by its mean, with the
scale of the last norm held."""

import pytest
import torch

from alens.rows.direct_write import centred_logits, direct_write
from alens.rows.final_norm import FinalNorm
from alens.store.model_record import LAYER_NORM, NO_NORM, RMS_NORM, NormRecord

N, H, E, D, V = 7, 3, 4, 10, 23


@pytest.mark.parametrize("kind", [LAYER_NORM, RMS_NORM, NO_NORM])
def test_it_is_what_the_norm_makes_of_the_head_apart_from_its_mean(kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    z_HNE = torch.randn(H, N, E, generator=random) + 3.0
    mean_HE = torch.randn(H, E, generator=random)
    W_O_HED = torch.randn(H, E, D, generator=random)
    rest_ND = 5 * torch.randn(N, D, generator=random)
    norm = FinalNorm(
        record=NormRecord(kind=kind, epsilon=1e-5),
        gain_D=torch.rand(D, generator=random) + 0.5,
        offset_D=torch.randn(D, generator=random),
    )
    stream_ND = rest_ND + (z_HNE @ W_O_HED).sum(0)
    scale_N = norm.scale(stream_ND)
    written_HND = direct_write(z_HNE, mean_HE[:, None], W_O_HED, norm, scale_N)
    for head in range(H):
        ablated_ND = stream_ND - (z_HNE[head] - mean_HE[head]) @ W_O_HED[head]
        lost_ND = norm.part(stream_ND, scale_N) - norm.part(ablated_ND, scale_N)
        torch.testing.assert_close(written_HND[head], lost_ND, rtol=1e-3, atol=1e-4)
        alone_ND = direct_write(z_HNE[head], mean_HE[head], W_O_HED[head], norm, scale_N)
        torch.testing.assert_close(alone_ND, written_HND[head])


def test_logits_are_centred_over_the_whole_vocabulary_for_chosen_tokens_too() -> None:
    random = torch.Generator().manual_seed(1)
    final_HND, W_U_DV = torch.randn(H, N, D, generator=random), torch.randn(D, V, generator=random) + 2.0
    logits_HNV = centred_logits(final_HND, W_U_DV)
    torch.testing.assert_close(logits_HNV.mean(-1), torch.zeros(H, N), rtol=0, atol=1e-5)
    whole_HNV = final_HND @ W_U_DV
    torch.testing.assert_close(logits_HNV, whole_HNV - whole_HNV.mean(-1, keepdim=True), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(centred_logits(final_HND, W_U_DV, [5, 0]), logits_HNV[..., [5, 0]])
