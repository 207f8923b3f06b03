"""What settings mean on a cache, and what they cannot mean."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import open_cache
from alens.errors import RequestError
from alens.fit.recipe import Recipe
from alens.fit.settings import FitSettings
from alens.lens.designs.translator import Translator
from alens.lens.designs.white_unembedding import WhiteUnembedding


def recipe(store: Path, **settings: Any) -> Recipe:
    return Recipe(FitSettings(**settings), open_cache(store), torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"lens": "cubic"},
            "lens is 'cubic': it must be one of linear, low-rank, translator, regression, tuned, summed",
        ),
        ({"objective": "l2"}, "objective is 'l2': it must be one of forward-kl, reverse-kl"),
        ({"objective_options": {"x": 1}}, "objective forward-kl has no option 'x': it has none"),
        ({"objective": "reverse-kl", "teacher": "compressed"}, "cannot be fitted to the compressed teacher"),
        ({"site": "resid_post"}, "does not hold resid_post: cache with --sites resid_post"),
        ({"site": "nowhere"}, "site is 'nowhere': it must be one of attn.z"),
        ({"layers": (9,)}, "layer 9 is not in"),
        ({"layers": ()}, "layers is empty or names one twice"),
        ({"heads": (1, 1)}, "heads is empty or names one twice"),
        ({"heads": (6,)}, "head 6 does not exist"),
    ],
)
def test_what_cannot_be_is_refused(demo_cache: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        recipe(demo_cache, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 17}, "top_k is 17: the cache has targets with 16, take 1 to 16"),
        ({"tail_samples": 17}, "tail_samples is 17"),
        ({"top_k": 2, "teacher": "exact"}, "top_k and tail_samples belong to the compressed teacher"),
        ({"min_position": 64}, "min_position is 64"),
    ],
)
def test_rows_that_cannot_be_had_are_refused(
    demo_cache: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        recipe(demo_cache, **settings).reader  # noqa: B018  # made when it is first asked for


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lens_options": {"rank": 2}}, "lens linear has no option 'rank': it has none"),
        ({"lens": "low-rank", "lens_options": {"width": 2}}, "has no option 'width': it has rank"),
        ({"lens": "low-rank", "lens_options": {"rank": 99}}, "rank is 99"),
        ({"lens": "tuned"}, "take --site resid_post, or `translator`"),
    ],
)
def test_a_design_that_cannot_be_is_refused(demo_cache: Path, settings: dict[str, Any], message: str) -> None:
    resolved = recipe(demo_cache, layers=(1,), **settings)
    (ground,) = resolved.grounds((0, 1)).values()
    with pytest.raises(RequestError, match=message):
        resolved.design(ground)


@pytest.mark.parametrize(
    ("settings", "teacher"),
    [({}, "compressed"), ({"teacher": "exact"}, "exact"), ({"objective": "reverse-kl"}, "exact")],
)
def test_the_teacher_is_what_was_asked_for_or_what_the_objective_takes_first(
    demo_cache: Path, settings: dict[str, Any], teacher: str
) -> None:
    resolved = recipe(demo_cache, **settings)
    assert resolved.teacher == teacher and resolved.reader.exact == (teacher == "exact")
    assert resolved.judge.exact  # whatever was fitted to: this cache has the exact one


def test_last_position_reads_the_last_position_alone(demo_cache: Path) -> None:
    resolved = recipe(demo_cache, objective="last-position")
    assert resolved.min_position == 63
    assert resolved.reader.rows_per_shard == resolved.judge.rows_per_shard == 16
    positions = resolved.reader.shard(1, "rows/position").by_name["rows/position"]
    assert positions.tolist() == [63] * 16


def test_narrowed_targets_are_fitted_to_and_never_judged_by(planted_store: Path) -> None:
    resolved = recipe(planted_store, top_k=3, tail_samples=2)
    assert resolved.reader.teacher(resolved.reader.shard(0)).ids_NJ.shape[1] == 5
    assert resolved.judge.narrow is None


def test_a_site_of_the_stream_has_one_head(residual_cache: Path) -> None:
    resolved = recipe(residual_cache, site="resid_post")
    assert resolved.heads.shared == (0,) and resolved.layers == (1, 2)
    with pytest.raises(RequestError, match="resid_post has no heads: leave --heads out"):
        recipe(residual_cache, site="resid_post", heads=(1,))


@pytest.mark.parametrize("site", ["attn.z", "resid_post"])
def test_grounds_whiten_the_values_that_are_read(residual_cache: Path, site: str) -> None:
    resolved = recipe(residual_cache, site=site)
    grounds = resolved.grounds((0, 1, 2))
    assert grounds.keys() == {1, 2}
    reader = resolved.reader
    parts = [grounds[2].whitening.white(reader.z(reader.shard(shard), 2)) for shard in range(3)]
    white_HNE = torch.cat(parts, 1).double().numpy()
    np.testing.assert_allclose(white_HNE.mean(1), 0, atol=0.02)
    variances = np.linalg.eigvalsh(np.cov(white_HNE[0].T, bias=True))
    assert variances.max() < 1.05 and np.median(variances) == pytest.approx(1, abs=0.05)
    assert float(grounds[2].log_mean_output_V.exp().sum()) == pytest.approx(1, abs=1e-3)


def test_the_unembedding_is_whitened_once_a_fit(residual_cache: Path) -> None:
    """A design is made for each layer, and again at each held-out evaluation."""
    resolved = recipe(residual_cache, lens="translator")
    grounds = resolved.grounds((0, 1))
    first, again, other = (resolved.design(grounds[layer]) for layer in (1, 1, 2))
    assert isinstance(first, Translator) and isinstance(again, Translator) and isinstance(other, Translator)
    assert first.basis_DV is again.basis_DV is other.basis_DV
    assert torch.equal(first.basis_DV, WhiteUnembedding.on(grounds[2]).basis_DV)
    elsewhere = resolved.design(resolved.grounds((0, 1))[1])
    assert isinstance(elsewhere, Translator) and elsewhere.basis_DV is not first.basis_DV
