"""Head Pursuit: shares against projections, and planted writes found by `locate`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alens import load_lenses
from alens.errors import RequestError
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.studies.location.locate import locate
from alens.studies.location.pursuit import pursue, shares
from alens.studies.location.settings import LocateSettings

from .examples import MEN, WOMEN, one, prompts
from .test_questions import questions

N, D, V = 40, 16, 60


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_share_is_that_of_the_projection_on_the_chosen_tokens() -> None:
    outputs_ND, atoms_WD = random(N, D, seed=0), random(5, D, seed=1)
    chosen, gains_NK = pursue(outputs_ND, atoms_WD, most=3)
    assert len(set(chosen)) == 3
    span_DK = torch.linalg.qr(atoms_WD[chosen].T.double()).Q
    along_NK = outputs_ND.double() @ span_DK
    expected_N = along_NK.square().sum(-1) / outputs_ND.double().square().sum(-1)
    np.testing.assert_allclose(gains_NK.sum(-1), expected_N, rtol=1e-6)


def test_what_is_written_along_a_token_is_found_first_and_whole() -> None:
    """Also where it is written with either sign; a token twice is chosen once."""
    W_U_DV = random(D, V, seed=2)
    signs_N = torch.tensor([1.0, -1.0]).repeat(N // 2)
    outputs_ND = signs_N[:, None] * (3 * W_U_DV[:, 7] + W_U_DV[:, 9])
    chosen, gains_NK = pursue(outputs_ND, W_U_DV[:, [4, 9, 7, 7]].T)
    assert chosen[0] in (2, 3) and len(chosen) == 3
    np.testing.assert_allclose(gains_NK.sum(-1), 1.0, rtol=1e-6)
    by_group_NG, chance_N = shares(outputs_ND, W_U_DV, [[7, 9], [4]], seed=0)
    np.testing.assert_allclose(by_group_NG[:, 0], 1.0, rtol=1e-6)
    assert by_group_NG[:, 1].max() < 1e-9 and 0.02 < chance_N.mean() < 0.6


@pytest.mark.parametrize("with_controls", [False, True])
def test_heads_are_ranked_by_the_share_beside_random_tokens_or_controls(
    reader: LensedModel, terms: list[Term], with_controls: bool
) -> None:
    settings = LocateSettings(by="pursuit")
    controls = prompts(WOMEN) if with_controls else None
    located = locate(reader, terms, prompts(MEN), controls, settings=settings)
    effects = [head.pursuit.effect for head in located.heads if head.pursuit is not None]
    assert len(effects) == 4 and effects == sorted(effects, reverse=True)
    assert located.unit == "share of what a head writes"
    assert located.reference == ("4 controls" if with_controls else "random tokens")
    (layer, head), W_U_DV = (3, 4), reader.model.W_U_DV
    rows = []
    for text in (*MEN, *(WOMEN if with_controls else ())):
        run = reader.run(reader.tokens(text), [layer])
        z_1TE = reader.values(run, layer, [head])[:, -1:]
        rows.append(reader.writes.final(layer, [head], z_1TE, reader.scale(run)[-1:])[0, 0])
    by_term_NG, chance_N = shares(torch.stack(rows), W_U_DV, [term.ids for term in terms], seed=0)
    share_N = by_term_NG.sum(-1)
    beside = share_N[4:].mean() if with_controls else chance_N.mean()
    ours = one(located, layer, head).pursuit
    assert ours is not None and ours.effect == pytest.approx(share_N[:4].mean() - beside, rel=1e-4, abs=1e-6)
    assert ours.probability == pytest.approx(share_N[:4].mean(), rel=1e-4)
    assert sum(share.probability for share in one(located, layer, head).terms) == pytest.approx(
        ours.probability
    )


def test_own_targets_are_one_list_for_it(reader: LensedModel) -> None:
    located = locate(reader, None, questions(), settings=LocateSettings(by="pursuit"))
    assert [share.term for share in located.heads[0].terms] == ["target", "foil"]
    assert all(head.pursuit is not None and 0 < head.pursuit.probability < 1 for head in located.heads)


def test_it_needs_what_heads_write(residual_lenses: Path, terms: list[Term]) -> None:
    of_stream = LensedModel(load_lenses(residual_lenses), device="cpu")
    with pytest.raises(RequestError, match="what heads write is not known"):
        locate(of_stream, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(by="pursuit"))
