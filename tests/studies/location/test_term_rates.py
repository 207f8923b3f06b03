"""KL of readings to the model, on the prompts that are located on."""

from pathlib import Path

import numpy as np
import pytest

from alens import HeadReader, load_lenses
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.studies.location.locate import locate
from alens.studies.location.result import Location
from alens.studies.location.settings import LocateSettings

from .examples import MEN, WOMEN, one, prompts


@pytest.mark.parametrize("position", ["last", "all"])
def test_kl_to_the_model_and_that_of_the_mean_output_are_of_the_same_positions(
    reader: LensedModel, terms: list[Term], demo_lenses: Path, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt counts once, however many of its positions are read; rows come in blocks."""
    monkeypatch.setattr("alens.machine.blocks.CPU_ROWS", 3)
    location = locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(position=position))
    head_reader = HeadReader(load_lenses(demo_lenses), device="cpu")
    readings = [
        head_reader.read(
            text, positions=[-1] if position == "last" else reader.fitted_places(len(reader.tokens(text)))
        )
        for text in (*MEN, *WOMEN)
    ]
    nothing = np.mean([np.mean(list(reading.mean_output_kl.values())) for reading in readings])
    assert location.mean_output_kl == pytest.approx(nothing, rel=1e-4)
    for layer, head in ((0, 1), (3, 4)):
        for name in ("lens_kl", "unembedding_kl"):
            by_prompt = [
                np.mean(
                    [
                        getattr(each, name)
                        for each in reading.heads
                        if (each.layer, each.head) == (layer, head)
                    ]
                )
                for reading in readings
            ]
            assert getattr(one(location, layer, head), name) == pytest.approx(np.mean(by_prompt), rel=1e-4)


def test_without_controls_kl_is_of_the_prompts(
    reader: LensedModel, terms: list[Term], location: Location
) -> None:
    ours, theirs = (locate(reader, terms, prompts(texts)) for texts in (MEN, WOMEN))
    assert ours.mean_output_kl is not None and theirs.mean_output_kl is not None
    assert location.mean_output_kl == pytest.approx((ours.mean_output_kl + theirs.mean_output_kl) / 2)
