"""Jacobian lenses on the demo: what they say beside direct writes and effects, their files, and how they are read and judged."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens.effects.measure_jacobians import measure_jacobians
from alens.effects.settings import JacobianRequest, JacobianSettings
from alens.errors import RequestError
from alens.lens.effect_lenses import load_effect_lenses
from alens.rows.final_norm import FinalNorm
from alens.store.cache_reader import open_cache
from alens.store.jacobian_reader import JacobianStore

from ..outcomes import refusal


@pytest.fixture(scope="module")
def store(document_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document cache with Jacobians of its heads. Shared."""
    store = tmp_path_factory.mktemp("jacobians") / "cache"
    shutil.copytree(document_cache, store)
    measure_jacobians(
        JacobianRequest(store=store, settings=JacobianSettings(rows=1024, probes=8), device="cpu")
    )
    return store


@pytest.fixture(scope="module")
def lenses(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from alens.fit.settings import FitRequest, FitSettings
    from alens.fit.training_loop import fit_lenses

    path = tmp_path_factory.mktemp("jacobian-lenses") / "lenses"
    fit_lenses(FitRequest(store=store, lenses=path, settings=FitSettings(lens="jacobian")))
    return path


def test_a_lens_is_the_mean_jacobian_behind_the_norm_at_the_scale_of_the_row(
    store: Path, lenses: Path
) -> None:
    opened, cache = load_effect_lenses(lenses), open_cache(store)
    norm = FinalNorm.of_cache(cache)
    assert norm is not None and opened.at_row
    rows = range(100, 140)
    z_HNE = torch.from_numpy(cache.z(3, rows)[:, [2]]).float().transpose(0, 1)
    scale_N = torch.from_numpy(cache.read("targets/final_scale", rows))
    _, mean_1E = opened.maps(3, [2])
    mean_HED, _ = JacobianStore(cache).mean(3)
    expected = norm.part((z_HNE - mean_1E[:, None]) @ torch.from_numpy(mean_HED[2]), scale_N) - norm.offset_D
    np.testing.assert_allclose(opened.final(3, [2], z_HNE, scale_N), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(RequestError, match="are read at the scale of the last norm at each row"):
        opened.final(3, [2], z_HNE)
    figures = opened.record.fit["jacobians"]["3"][2]
    assert 0 < figures["standard_error"] < 0.5 and 0.3 < figures["cosine_with_write"] <= 1


def test_the_command_says_how_certain_they_are_and_a_second_run_is_finished(
    store: Path, tmp_path: Path, run_alens: Any
) -> None:
    for _ in range(2):
        outcome = run_alens("fit", store, tmp_path / "lenses", "--lens", "jacobian", "--layers", 3)
        assert outcome.code == 0, outcome
        assert (
            "6 Jacobian lenses in" in outcome.stdout
            and "from 1,008 rows, reach same-position" in outcome.stdout
        )
        assert "the standard error of a Jacobian is" in outcome.stdout
    said = run_alens("info", tmp_path / "lenses").stdout
    assert "jacobians: 6 heads, the best first" in said and said.count("cosine with W_O 0.") == 6
    assert "jacobians: same-position of " in run_alens("info", store).stdout
    for arguments, says in (
        (("--lr", "0.1"), "lr is for lenses that are fitted to the model's output"),
        (("--layers", "2"), "holds no Jacobians of layer 2: run `alens jacobians` for it"),
        (("--lens-option", "reach=far"), "reach is far: it must be same-position or later-positions"),
        (("--lens-option", "rank=8"), "jacobian has no option rank: it has reach"),
        (("--lens-option", "reach=later-positions"), "--reach later-positions` to measure them"),
    ):
        outcome = run_alens("fit", store, tmp_path / "none", "--lens", "jacobian", *arguments)
        assert says in refusal(outcome, after_log=True)
        assert not (tmp_path / "none").exists()


def test_they_are_judged_and_read_in_the_place_of_effect_lenses(
    store: Path, lenses: Path, demo_lenses: Path, tmp_path: Path, run_alens: Any
) -> None:
    heads = ("--heads", "3.1")
    line = (
        "read",
        demo_lenses,
        "He took her hand and",
        *heads,
        "--effect",
        lenses,
        "--device",
        "cpu",
        "--json",
    )
    (reading,) = json.loads(run_alens(*line).stdout)
    written, effect = reading["heads"][0]["written"]["raised"], reading["heads"][0]["effect"]["raised"]
    assert written[0]["logit"] > 0 and effect[0]["logit"] > 0
    assert run_alens("effects", store, "--heads", "3.1", "--rows", 512, "--device", "cpu").code == 0
    assert run_alens("fit", store, tmp_path / "closed", *heads, "--lens", "regression").code == 0
    line = ("eval", tmp_path / "closed", store, "--also", lenses, "--rows", 256, "--json")
    outcome = run_alens(*line)
    assert outcome.code == 0, outcome
    body = json.loads(outcome.stdout)
    kl = {one["reading"]: one["kl"] for one in body["lenses"] if "reading" in one} if "lenses" in body else {}
    assert kl or "jacobian" in outcome.stdout
