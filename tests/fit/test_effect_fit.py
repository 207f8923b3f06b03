"""Effect lenses on the demo: what they explain on held-out documents, their files, and what they are not taken for."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import load_lenses
from alens.effects.measure_effects import measure_effects
from alens.effects.settings import EffectRequest, EffectSettings
from alens.errors import DamageError, RequestError
from alens.heads import Heads
from alens.lens.effect_lenses import load_effect_lenses
from alens.rows.direct_write import centred_logits
from alens.store.cache_reader import open_cache
from alens.store.effect_reader import open_effects

from ..damage import flip
from ..outcomes import refusal


@pytest.fixture(scope="module")
def store(document_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document cache with effects of the heads of layer 3 and of head 0.2. Shared."""
    store = tmp_path_factory.mktemp("effects") / "cache"
    shutil.copytree(document_cache, store)
    for heads in ("3.0-5", "0.2"):
        measure_effects(
            EffectRequest(store=store, settings=EffectSettings(rows=2048, heads=heads), device="cpu")
        )
    return store


@pytest.fixture
def lenses(store: Path, tmp_path: Path, run_alens: Any) -> Path:
    path = tmp_path / "effect-lenses"
    outcome = run_alens("fit", store, path, "--lens", "effect")
    assert outcome.code == 0, outcome
    assert f"7 effect lenses in {path}: on " in outcome.stdout
    return path


def test_the_lenses_explain_the_effect_on_documents_that_they_did_not_see(store: Path, lenses: Path) -> None:
    opened, effects = load_effect_lenses(lenses), open_effects(store)
    assert opened.record.lenses == Heads(((0, 2), *((3, head) for head in range(6))))
    cache, rows = open_cache(store), effects.rows
    held_N, W_U_DV = rows.held_out_N, torch.from_numpy(cache.weights("W_U"))
    for layer, heads in opened.record.lenses.by_layer.items():
        z_HNE = torch.from_numpy(cache.z(layer, rows.row_N[held_N])[:, list(heads)]).transpose(0, 1)
        said_HNV = centred_logits(opened.final(layer, heads, z_HNE), W_U_DV)
        effect_HND = torch.from_numpy(effects.delta(layer)[held_N].astype(np.float32)).transpose(0, 1)
        measured_HNV = centred_logits(effect_HND, W_U_DV)
        left_H = (measured_HNV - said_HNV).square().sum((1, 2)) / measured_HNV.square().sum((1, 2))
        figures = opened.record.fit["effects"][str(layer)]
        for left, of_head in zip(left_H.tolist(), figures, strict=True):
            assert 1 - left == pytest.approx(of_head["explained"]["share"], abs=2e-3)
            low, high = of_head["explained"]["interval"]
            assert low <= of_head["explained"]["share"] <= high
            assert of_head["explained"]["share"] > of_head["written"]["share"] - 0.01
    last = [head["explained"]["share"] for head in opened.record.fit["effects"]["3"]]
    assert np.mean(last) > 0.5  # of the last layer, whose heads act through its MLP and the last norm alone


def test_a_second_run_is_finished_and_another_fit_is_refused(
    store: Path, lenses: Path, run_alens: Any
) -> None:
    content = {path.name: path.read_bytes() for path in lenses.iterdir() if path.is_file()}
    assert run_alens("fit", store, lenses, "--lens", "effect").code == 0
    assert {path.name: path.read_bytes() for path in lenses.iterdir() if path.is_file()} == content
    says = refusal(run_alens("fit", store, lenses, "--lens", "effect", "--heads", "3.1"), after_log=True)
    assert "holds another fit" in says
    assert "holds another fit" in refusal(run_alens("fit", store, lenses), after_log=True)


def test_info_says_what_is_explained(lenses: Path, run_alens: Any) -> None:
    outcome = run_alens("info", lenses)
    assert outcome.code == 0 and "design: effect" in outcome.stdout
    lines = [line for line in outcome.stdout.splitlines() if " by what it writes " in line]

    def explained(line: str) -> float:
        return -float(line.split()[2])

    assert [line.split()[0] for line in lines] == [line.split()[0] for line in sorted(lines, key=explained)]
    assert {line.split()[0] for line in lines} == {"0.2", *(f"3.{head}" for head in range(6))}
    body = json.loads(run_alens("info", lenses, "--json").stdout)
    assert body["effects"][0]["head"] == "0.2" and body["held_out"] == []


def test_nobody_takes_an_effect_lens_for_a_distribution(
    lenses: Path, demo_lenses: Path, run_alens: Any
) -> None:
    says = refusal(run_alens("read", lenses, "He took"), after_log=True)
    assert "holds effect lenses, which say what a head adds to the logits" in says
    says = refusal(run_alens("export", lenses, lenses.parent / "exported"), after_log=True)
    assert "holds lenses of the form 'effect': only affine lenses have a weight" in says
    with pytest.raises(RequestError, match="holds linear lenses, not effect lenses"):
        load_effect_lenses(demo_lenses)
    with pytest.raises(RequestError, match="holds effect lenses"):
        load_lenses(lenses).layer(3)


def test_damage_is_noticed(lenses: Path) -> None:
    flip(lenses / "layer-03.safetensors")
    with pytest.raises(DamageError, match="was altered since it was written"):
        load_effect_lenses(lenses).maps(3, [0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--lr", "0.1"), "lr is for lenses that are fitted to the model's output"),
        (("--layers", "2"), "holds no effects of layer 2: run `alens effects` for it"),
        (("--heads", "0.3"), "holds no effects of head 0.3: run `alens effects"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(
    store: Path, tmp_path: Path, run_alens: Any, arguments: tuple[str, ...], says: str
) -> None:
    outcome = run_alens("fit", store, tmp_path / "none", "--lens", "effect", *arguments)
    assert says in refusal(outcome, after_log=True)
    assert not (tmp_path / "none").exists()


def test_a_cache_without_effects_says_what_to_run(demo_cache: Path, tmp_path: Path, run_alens: Any) -> None:
    outcome = run_alens("fit", demo_cache, tmp_path / "none", "--lens", "effect")
    assert "holds no effects of heads: run `alens effects" in refusal(outcome, after_log=True)
