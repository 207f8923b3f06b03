"""Lenses are never judged on text that their fit trained on, as far as that can be told."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from alens import CacheRequest, FitRequest, demo, fit_lenses, load_lenses, open_cache, write_cache
from alens.errors import RequestError
from alens.evaluation.evaluate import evaluate
from alens.evaluation.settings import EvaluateSettings
from alens.evaluation.shards import judged_text, text_held_out_by
from alens.fit.settings import FitSettings
from alens.store.schema import CacheSettings
from alens.studies.basis import held_out_sample
from alens.studies.transfer.transfer import transfer
from alens.text.corpus import CorpusOptions

Copy = Callable[[Path], Path]
Written = Callable[..., Path]

SETTINGS = CacheSettings(
    seq_len=32, rows_per_shard=512, max_rows=4096, layers=(0,), top_k=8, tail_samples=8, batch_size=16
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """`written(seed=1)`: a cache of the demo, by document unless `column=None`."""

    def write(*, corpus: str = "demo", column: str | None = "document", **settings: Any) -> Path:
        store = tmp_path_factory.mktemp("text") / "store"
        write_cache(
            CacheRequest(
                model="demo",
                corpus=corpus,
                store=store,
                settings=dataclasses.replace(SETTINGS, **settings),
                options=CorpusOptions(document_column=column),
                device="cpu",
            )
        )
        return store

    return write


@pytest.fixture(scope="module")
def by_document(written: Written) -> Path:
    return written()


@pytest.fixture(scope="module")
def without_documents(written: Written) -> Path:
    return written(column=None)


def fitted(store: Path, lenses: Path) -> Path:
    settings = FitSettings(heads=(1,), steps=4, batch_rows=256, eval_rows=512)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=store, lenses=lenses, settings=settings, device="cpu"))
    return lenses


@pytest.fixture(scope="module")
def lenses(by_document: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(by_document, tmp_path_factory.mktemp("fit") / "lenses")


@pytest.fixture(scope="module")
def lenses_without(without_documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(without_documents, tmp_path_factory.mktemp("fit") / "lenses")


def trained_documents(store: Path, lenses: Path) -> set[int]:
    cache = open_cache(store)
    assert cache.token_documents is not None
    sequences = [
        cache.read_shard("rows/sequence", shard) for shard in load_lenses(lenses).record.cache["train_shards"]
    ]
    return set(cache.token_documents[np.unique(np.concatenate(sequences))].ravel().tolist())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"seq_len": 64, "max_rows": 16384, "rows_per_shard": 2048},
        {"top_k": 4},
        {"rows_per_shard": 1024},
    ],
    ids=str,
)
def test_on_another_cache_of_the_text_only_other_documents_are_judged(
    written: Written,
    by_document: Path,
    lenses: Path,
    changes: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    other, opened = open_cache(written(**changes)), load_lenses(lenses)
    trained = trained_documents(by_document, lenses)
    text = judged_text(opened, other)
    judged = text.mask(other)
    assert other.token_documents is not None
    clean = [trained.isdisjoint(row.tolist()) for row in other.token_documents]
    assert judged.tolist() == clean
    assert 0 < judged.sum() < len(judged)
    assert (text.left_out, text.trained_on) == (len(judged) - judged.sum(), "no")
    evaluation = evaluate(opened, other, settings=EvaluateSettings(resamples=50))
    T = other.plan.settings.seq_len
    assert (evaluation.sequences, evaluation.rows) == (judged.sum(), judged.sum() * (T - 1))
    assert evaluation.to_json()["sequences_left_out"] == text.left_out
    assert evaluation.to_json()["trained_on"] == "no"
    assert not caplog.messages


def test_fewer_rows_are_of_the_same_sequences(written: Written, lenses: Path) -> None:
    other, opened = open_cache(written(seed=1)), load_lenses(lenses)
    evaluation = evaluate(opened, other, settings=EvaluateSettings(rows=100, resamples=50))
    assert evaluation.rows == 100
    assert evaluation.sequences <= judged_text(opened, other).mask(other).sum()


def test_without_documents_the_same_sequences_in_another_form_are_told(
    written: Written, lenses_without: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another k, other layers, other sizes of shards: tokens.npy is the same."""
    opened = load_lenses(lenses_without)
    assert opened.record.cache["held_out_shards"] == [7]
    for changes, shards in (({"top_k": 4}, (7,)), ({"rows_per_shard": 1024}, (3,))):
        other = open_cache(written(column=None, **changes))
        text = judged_text(opened, other)
        assert (text.shards, text.left_out, text.trained_on) == (shards, 7 * 16, "no")
        assert np.flatnonzero(text.mask(other)).tolist() == list(range(112, 128))
    assert not caplog.messages


@pytest.mark.parametrize(("changes", "column"), [({"seed": 1}, None), ({}, "document")], ids=str)
def test_where_it_cannot_be_told_a_line_says_so_and_the_json_too(
    written: Written,
    lenses_without: Path,
    changes: dict[str, Any],
    column: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = open_cache(written(column=column, **changes))
    body = evaluate(load_lenses(lenses_without), other, settings=EvaluateSettings(resamples=50)).to_json()
    assert (body["trained_on"], body["sequences_left_out"]) == ("unknown", 0)
    (said,) = caplog.messages
    assert "was fitted on text that" in said and "neither says by document what was taken" in said


def test_lenses_of_before_do_not_say_what_they_were_fitted_on(
    written: Written, lenses: Path, copy_of: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    opened = load_lenses(lenses)
    before = {name: value for name, value in opened.record.cache.items() if name != "text"}
    opened.record = dataclasses.replace(opened.record, cache=before)
    text = judged_text(opened, open_cache(written(seed=1)))
    assert (text.trained_on, text.left_out) == ("unknown", 0)
    assert "it does not say which text it was fitted on" in caplog.messages[-1]


def test_other_text_is_judged_whole_and_without_a_word(
    written: Written, lenses: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(demo.CORPUS)
    pq.write_table(table.slice(0, table.num_rows // 2), tmp_path / "other.parquet")
    other = open_cache(written(corpus=str(tmp_path / "other.parquet")))
    text = judged_text(load_lenses(lenses), other)
    assert (text.shards, text.sequences_B, text.trained_on) == (other.shards, None, "no")
    assert not caplog.messages


def test_a_cache_of_trained_documents_alone_is_refused(
    written: Written, lenses: Path, by_document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, trained = open_cache(written(seed=1)), trained_documents(by_document, lenses)
    monkeypatch.setattr(other, "token_documents", np.full((128, 32), min(trained), np.uint32))
    with pytest.raises(RequestError, match="was trained on all that could be judged on"):
        judged_text(load_lenses(lenses), other)


def test_what_other_lenses_held_out_is_judged_without_what_these_were_trained_on(
    written: Written, by_document: Path, lenses: Path, tmp_path: Path
) -> None:
    """`--held-out-by`: lenses of another cache of the text, or of other shards of the same one."""
    store = written(seed=1)
    other = load_lenses(fitted(store, tmp_path / "other"))
    cache = open_cache(store)
    text = text_held_out_by(other, load_lenses(lenses), cache)
    assert cache.token_documents is not None
    trained = trained_documents(by_document, lenses)
    judged = np.flatnonzero(text.mask(cache))
    assert set(judged) <= set(range(112, 128))
    assert all(trained.isdisjoint(cache.token_documents[number].tolist()) for number in judged)
    assert text.left_out == 16 - len(judged)


def test_transfer_and_basis_take_the_same_text(written: Written, lenses: Path) -> None:
    other, opened = open_cache(written(seed=1)), load_lenses(lenses)
    text = judged_text(opened, other)
    judged = np.flatnonzero(text.mask(other))
    matrix = transfer(opened, other)
    assert (matrix.sequences, matrix.rows, matrix.trained_on) == (len(judged), len(judged) * 31, "no")
    sample = held_out_sample.draw(other, text, num_rows=10_000, num_sequences=3, min_position=1, seed=0)
    sequences = np.unique(other.read("rows/sequence", sample.rows_N))
    assert len(sequences) == len(judged) - 3
    assert set(sequences) <= set(judged)


def test_a_tuned_lens_that_saw_the_rows_takes_them_out(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Both were fitted on caches of the same text with other seeds."""
    stores = []
    for seed in (0, 1):
        store = tmp_path / f"store {seed}"
        settings = dataclasses.replace(SETTINGS, sites=("resid_post",), seed=seed)
        write_cache(
            CacheRequest(
                model="demo",
                corpus="demo",
                store=store,
                settings=settings,
                options=CorpusOptions(document_column="document"),
                device="cpu",
            )
        )
        stores.append(store)
    own = load_lenses(fitted(stores[0], tmp_path / "lenses"))
    settings = FitSettings(lens="tuned", site="resid_post", steps=4, batch_rows=256, eval_rows=512)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=stores[1], lenses=tmp_path / "tuned", settings=settings, device="cpu"))
    cache, tuned = open_cache(stores[0]), load_lenses(tmp_path / "tuned")
    alone = evaluate(own, cache, settings=EvaluateSettings(resamples=50))
    beside = evaluate(own, cache, tuned_lens=tuned, settings=EvaluateSettings(resamples=50))
    assert beside.sequences_left_out > 0
    assert beside.sequences == alone.sequences - beside.sequences_left_out


def test_lens_json_says_what_it_takes(by_document: Path, lenses: Path) -> None:
    said = json.loads((lenses / "lens.json").read_text())["cache"]["text"]
    plan = open_cache(by_document).plan
    assert said["files"] == [file.sha256 for file in plan.corpus.files]
    assert (said["document_column"], said["row_documents"]) == ("document", False)
    numbers = {
        number
        for run in said["trained_documents"].split(",")
        for ends in [run.split("-")]
        for number in range(int(ends[0]), int(ends[-1]) + 1)
    }
    assert numbers == trained_documents(by_document, lenses)
