"""Readings of prompts: at which positions, and in blocks."""

import copy
from dataclasses import replace

import pytest
import torch

from alens.heads import Heads
from alens.reading.lensed_model import LensedModel
from alens.studies.comparison.compare import compare
from alens.studies.comparison.prompt_readings import PromptReadings
from alens.studies.comparison.prompt_sets import prompt_set, prompt_tokens
from alens.studies.comparison.settings import CompareSettings


def test_positions_are_chosen_or_averaged(reader: LensedModel) -> None:
    ids = [reader.tokens("The old man said"), reader.tokens("She")]
    readings = PromptReadings(reader, ids, [[1, 2, 3], [0]], Heads.grid([0], [4]))
    values_HTE = reader.values(reader.run(ids[0], [0]), 0, [4])
    every_TV = reader.lens(0, [4], values_HTE)[0].exp()
    assert torch.allclose(readings.says("lens", 0, 4)[0], every_TV[1:].mean(0), atol=1e-6)
    given = [prompt_set("The old man said"), prompt_set("The old man went")]
    before = compare(reader, *given, settings=CompareSettings(position=2))
    assert all(change.lens.divergence < 1e-9 for change in before.heads)
    assert (
        before.heads[0].lens.divergence
        != compare(reader, *given, settings=CompareSettings(position="all")).heads[0].lens.divergence
    )


def test_all_positions_are_those_that_lenses_were_fitted_on(reader: LensedModel) -> None:
    texts = prompt_set("The old man said"), prompt_set("She")
    given = [prompt for one in texts for prompt in one.prompts]
    length = len(reader.tokens("The old man said"))
    assert reader.lenses.record.fit["min_position"] == 1
    assert prompt_tokens(reader, given, "all")[1] == [list(range(1, length)), [0]]
    other = copy.copy(reader)
    other.lenses = copy.copy(reader.lenses)
    other.lenses.record = replace(reader.lenses.record, fit={**reader.lenses.record.fit, "min_position": 3})
    assert prompt_tokens(other, given, "all")[1] == [list(range(3, length)), [0]]
    assert prompt_tokens(other, given, "last")[1] == [[length - 1], [0]]


def test_what_is_read_does_not_depend_on_blocks(reader: LensedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [reader.tokens(text) for text in ("The old man said", "She went", "He")]
    rows = [[1, 2, 3], [1], [0]]
    whole_NV = PromptReadings(reader, ids, rows, Heads.grid([0, 3], [1, 4])).says("unembedding", 3, 4)
    monkeypatch.setattr("alens.machine.blocks.LOGIT_BYTES", 4 * 4096 * 2)
    blocks_NV = PromptReadings(reader, ids, rows, Heads.grid([0, 3], [1, 4])).says("unembedding", 3, 4)
    assert torch.allclose(whole_NV, blocks_NV, atol=1e-6) and torch.allclose(whole_NV.sum(1), torch.ones(3))
