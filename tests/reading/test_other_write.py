"""Caches of an alens that did not know what heads of some models write: lenses read them, and what needs the write says that
it is missing."""

import os
from pathlib import Path
from unittest import mock

import pytest
import torch

from alens import (
    CacheRequest,
    EvaluateSettings,
    FitRequest,
    evaluate,
    fit_lenses,
    load_lenses,
    open_cache,
    write_cache,
)
from alens.errors import RequestError
from alens.exchange import export
from alens.exchange.request import ExportRequest
from alens.fit.settings import FitSettings
from alens.reading.head_reader import HeadReader
from alens.reading.page_reader import read_page
from alens.reading.terms import Term
from alens.rows.row_scales import RowScales
from alens.store.schema import CacheSettings
from alens.studies.basis.causal_basis import causal_bases
from alens.studies.basis.settings import BasisSettings
from alens.studies.injection.inject import inject
from alens.studies.injection.settings import InjectSettings
from alens.studies.location.scored import TermList
from alens.studies.location.settings import LocateSettings
from alens.studies.location.term_rates import term_rates
from alens.studies.transfer.transfer import transfer

from ..model.families import GATED, save

PROMPT = "She looked at the sea"
SAYS = "GraniteForCausalLM has a norm or a factor behind its attention"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("granite")
    model = save(root / "model", "GraniteConfig", {**GATED, "residual_multiplier": 0.22})
    settings = CacheSettings(
        seq_len=16, rows_per_shard=64, max_rows=256, batch_size=2, top_k=8, tail_samples=4
    )
    request = CacheRequest(
        model=str(model), corpus="demo", store=root / "cache", settings=settings, device="cpu"
    )
    with mock.patch("alens.model.examine.head_write", lambda *_: "other"):  # as an earlier alens had it
        write_cache(request)
    return root / "cache"


@pytest.fixture(scope="module")
def lenses(store: Path) -> Path:
    root = store.parent / "lenses"
    settings = FitSettings(layers=(1,), steps=3, batch_rows=64, eval_rows=60)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=store, lenses=root, settings=settings, device="cpu"))
    return root


@pytest.fixture
def reader(lenses: Path, caplog: pytest.LogCaptureFixture) -> HeadReader:
    reader = HeadReader(load_lenses(lenses), device="cpu")
    assert [line for line in caplog.messages if line.startswith(SAYS) and line.endswith("left out")]
    return reader


def test_it_stands_in_lens_json(lenses: Path) -> None:
    model = load_lenses(lenses).record.model
    assert model.head_write == "other" and model.final_norm is not None and model.final_norm.kind == "rms"


def test_a_reading_has_the_lens_alone(reader: HeadReader) -> None:
    for head in reader.read(PROMPT, rank="probability").heads:
        assert len(head.lens) == 10 and head.lens_kl > 0
        assert (head.unembedding, head.unembedding_kl, head.unembedding_entropy) == ([], None, None)
        assert head.unembedding_terms == []
        assert head.written is None and head.written_terms == []


def test_a_reading_says_why_it_has_no_write(reader: HeadReader) -> None:
    assert (reader.read(PROMPT).no_write or "").startswith(SAYS)
    with pytest.raises(RequestError, match=SAYS):
        reader.writes.logits(1, [0], torch.zeros(1, 2, 8), RowScales(torch.ones(2)))


def test_a_page_has_the_lens_alone(reader: HeadReader) -> None:
    (place, *_) = read_page(reader, [PROMPT]).prompts[0]["places"]
    assert place.unembedding is None and len(place.lens.kl) == 4


def test_rates_of_terms_are_of_the_lens_alone(reader: HeadReader) -> None:
    rates = term_rates(
        reader,
        TermList([Term(text="sea", ids=(300,))]),
        [reader.tokens(PROMPT)],
        reader.chosen((1,), (0,)),
        LocateSettings(),
    )
    assert rates.unembedding is None and rates.lens.p_PF.shape == (1, 1)


def test_lenses_of_before_anybody_looked_are_looked_at(reader: HeadReader) -> None:
    record = reader.lenses.record.model
    assert reader._head_write(record) == "folded"


def test_what_rests_on_the_write_is_refused_in_a_line(reader: HeadReader, store: Path) -> None:
    cache, term = open_cache(store), Term(text="sea", ids=(300,))
    asked = [
        lambda: export.plan(reader.lenses),
        lambda: inject(reader, [PROMPT], [term], InjectSettings(layer=1, head=0)),
        lambda: transfer(reader.lenses, cache),
        lambda: causal_bases(reader, cache, settings=BasisSettings(compare=("unembedding",))),
        lambda: reader.unembedding(1, [0], torch.zeros(1, 2, 8), RowScales(torch.ones(2))),
        lambda: cache.head_outputs(slice(0, 2)),
    ]
    for ask in asked:
        with pytest.raises(RequestError, match=SAYS) as caught:
            ask()
        assert len(str(caught.value).splitlines()) == 1
    assert export.plan(reader.lenses, ExportRequest(form="z")).width == 8


def test_lenses_are_judged_without_it(reader: HeadReader, store: Path) -> None:
    evaluation = evaluate(reader.lenses, open_cache(store), settings=EvaluateSettings(resamples=2))
    assert evaluation.unembedding == {} and len(evaluation.lens[1]) == 4
