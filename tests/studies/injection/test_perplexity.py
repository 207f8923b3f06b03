"""The loss on a text, against transformers alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens.errors import RequestError
from alens.machine import blocks
from alens.model.edited_runs import EditedRuns
from alens.model.edits import Edit
from alens.reading.lensed_model import LensedModel
from alens.studies.injection.perplexity import Loss, cut, loss_of, read_windows
from alens.text.corpus import CorpusOptions, resolve


def direct(model: Any, batches: tuple[torch.Tensor, ...]) -> list[float]:
    """The loss of each window in nats, by transformers, one window after the other."""
    with torch.no_grad():
        windows = [window for batch in batches for window in batch]
        return [float(model(w[None], labels=w[None]).loss) * (len(w) - 1) for w in windows]


def test_the_loss_is_that_of_transformers(
    reader: LensedModel, plain_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LOGIT_BYTES", 4 * 4096 * 100)  # several blocks a window
    windows = read_windows(resolve("demo", CorpusOptions()), reader.model, 600)
    assert [tuple(batch.shape) for batch in windows.batches] == [(2, 256), (1, 88)]
    loss = loss_of(reader.model, windows, EditedRuns(reader.model, windows.batches, ()))
    assert loss.nats_W.tolist() == pytest.approx(direct(plain_model, windows.batches), rel=1e-4)
    assert loss.tokens_W.tolist() == [255.0, 255.0, 87.0]
    assert windows.predicted == 597 and windows.count == 3
    assert loss.mean == pytest.approx(sum(loss.nats_W) / 597)


def test_an_edit_changes_the_loss_as_the_same_weights_do(reader: LensedModel, plain_model: Any) -> None:
    windows = read_windows(resolve("demo", CorpusOptions()), reader.model, 300)
    runs = EditedRuns(reader.model, windows.batches, ())
    loss = loss_of(reader.model, windows, runs, [Edit(layer=0, head=1, z=torch.zeros_like)])
    with torch.no_grad():
        plain_model.transformer.h[0].attn.c_proj.weight[32:64] = 0
    assert loss.nats_W.tolist() == pytest.approx(direct(plain_model, windows.batches), rel=1e-4)


@pytest.mark.parametrize(
    ("tokens", "shapes"),
    [
        (10, [(2, 5)]),
        (11, [(2, 5)]),  # the last token has nothing to be predicted from
        (12, [(2, 5), (1, 2)]),
        (3, [(1, 3)]),
    ],
)
def test_windows_are_cut_one_after_the_other(tokens: int, shapes: list[tuple[int, int]]) -> None:
    batches = cut(torch.arange(tokens), 5)
    assert [tuple(batch.shape) for batch in batches] == shapes
    kept = torch.cat([batch.flatten() for batch in batches]).tolist()
    assert kept == list(range(len(kept)))


def test_the_difference_has_an_interval_over_windows() -> None:
    tokens_W = np.full(50, 10.0)
    clean = Loss(nats_W=np.full(50, 30.0), tokens_W=tokens_W)
    changed = Loss(nats_W=np.where(np.arange(50) % 2, 32.0, 31.0), tokens_W=tokens_W)
    added, interval = changed.more_than(clean, seed=0)
    assert added == pytest.approx(0.15) and interval is not None
    assert 0.1 < interval[0] < 0.15 < interval[1] < 0.2


def test_one_window_has_no_interval() -> None:
    clean, changed = (Loss(nats_W=np.array([n]), tokens_W=np.array([10.0])) for n in (30.0, 31.0))
    assert changed.more_than(clean, seed=0) == (pytest.approx(0.1), None)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "holds fewer than two tokens"), ("the", "holds fewer than two tokens")],
)
def test_a_text_with_nothing_to_predict_is_refused(
    reader: LensedModel, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_text(content)
    with pytest.raises(RequestError, match=message):
        read_windows(resolve(str(path), CorpusOptions()), reader.model, 100)


def test_a_text_file_is_read_as_a_cache_reads_it(reader: LensedModel, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("The door opened.\n\nShe went in.\n")
    (batch,) = read_windows(resolve(str(path), CorpusOptions()), reader.model, 100).batches
    assert reader.text(*batch[0].tolist()) == "The door opened. She went in."
