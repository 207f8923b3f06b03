"""Many passes with edits over the same sequences, each from its first edit on, against whole ones."""

from collections.abc import Sequence

import pytest
import torch

from alens import demo
from alens.model import edited_runs, models, partial_pass
from alens.model.edited_runs import EditedRuns
from alens.model.edits import Edit, run_edited
from alens.model.models import LoadedModel

EDITS = [
    [Edit(layer=2, head=3, z=torch.zeros_like)],
    [Edit(layer=3, output=lambda out_BTD: out_BTD + 1.0), Edit(layer=1, head=0, z=torch.zeros_like)],
    [Edit(layer=1, residual=lambda stream_BTD: 0.5 * stream_BTD)],
    [Edit(layer=0, head=1, z=torch.zeros_like)],
]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return models.load(models.find(str(demo.MODEL)), dtype="float32", device="cpu")


@pytest.fixture
def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, 4000, shape, generator=generator) for shape in ((2, 40), (1, 7))]


def assert_same(model: LoadedModel, batches: Sequence[torch.Tensor], runs: EditedRuns) -> None:
    for edits in EDITS:
        for tokens_BT, final_BTD in zip(batches, runs.under(edits), strict=True):
            whole_BTD = run_edited(model, tokens_BT, edits)
            torch.testing.assert_close(final_BTD, whole_BTD, rtol=1e-5, atol=1e-4)
    for tokens_BT, clean in zip(batches, runs.clean, strict=True):
        torch.testing.assert_close(clean.final_BTD, run_edited(model, tokens_BT, []), rtol=1e-5, atol=1e-4)


def test_a_pass_begins_at_its_first_edit_and_gives_the_same(
    loaded: LoadedModel, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = []

    def noted(
        model: LoadedModel, clean: partial_pass.CleanPass, layer: int, edits: Sequence[Edit]
    ) -> torch.Tensor:
        began.append(layer)
        return partial_pass.edited_pass(model, clean, layer, edits)

    monkeypatch.setattr(edited_runs, "edited_pass", noted)
    runs = EditedRuns(loaded, batches, [2, 1, 1, 0])
    assert runs.quick
    assert_same(loaded, batches, runs)
    assert began == [2, 2, 1, 1, 1, 1]  # of two batches each; the last edit is in the first layer


def test_few_streams_are_kept_where_memory_is_short(
    loaded: LoadedModel, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edited_runs, "KEPT_BYTES", 1)
    runs = EditedRuns(loaded, batches, [1, 2, 3])
    assert [list(clean.before_BTD) for clean in runs.clean] == [[1], [1]]
    assert_same(loaded, batches, runs)


def test_a_model_that_cannot_begin_at_a_layer_runs_whole(
    loaded: LoadedModel, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edited_runs, "begins_at", lambda *_: False)
    runs = EditedRuns(loaded, batches, [1, 2])
    assert not runs.quick and not runs.clean[0].before_BTD
    assert_same(loaded, batches, runs)
