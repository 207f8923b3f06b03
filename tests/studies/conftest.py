"""The demo's model twice: as alens loads it with lenses, and as transformers alone does."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from alens import FitRequest, demo, fit_lenses, load_lenses
from alens.fit.settings import FitSettings
from alens.lens.effect_lenses import load_effect_lenses
from alens.reading.lensed_model import LensedModel


@pytest.fixture(scope="module")
def reader(demo_lenses: Path) -> LensedModel:
    return LensedModel(load_lenses(demo_lenses), device="cpu")


@pytest.fixture(scope="module")
def effect_reader(demo_lenses: Path, demo_effect_lenses: Path) -> LensedModel:
    """The same with effect lenses of two of the four heads."""
    return LensedModel(load_lenses(demo_lenses), effect=load_effect_lenses(demo_effect_lenses), device="cpu")


@pytest.fixture
def plain_model() -> Any:
    """A GPT2LMHeadModel in float32, made for this test alone."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(demo.MODEL, dtype=torch.float32).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def residual_lenses(residual_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tuned lenses of the residual stream after layers 1 and 2 of the demo. Shared: never write to it."""
    lenses = tmp_path_factory.mktemp("shared") / "residual-lenses"
    settings = FitSettings(
        layers=(1, 2), lens="tuned", site="resid_post", steps=5, batch_rows=128, eval_rows=256
    )
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=residual_cache, lenses=lenses, settings=settings, device="cpu"))
    return lenses
