"""What heads write on a prompt, against the model itself without the head, and the mark of what they know and suppress."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens import TransformerBridge

from alens import HeadReader, demo, load_lenses, open_cache
from alens.errors import RequestError
from alens.heads import Heads
from alens.lens.directory import LensDirectory, layer_file
from alens.reading.result import Reading, WrittenToken
from alens.reading.settings import KNOWN_LIFT, MIN_PROBABILITY, SUPPRESSED_LOGIT
from alens.reading.written_lists import is_suppressed, written_lists
from alens.rows import moments
from alens.rows.row_scales import RowScales

PROMPT = "The old man opened the door and said"
Copy = Callable[[Path], Path]


@pytest.fixture(scope="module")
def reader(demo_lenses: Path) -> HeadReader:
    return HeadReader(load_lenses(demo_lenses), device="cpu")


@pytest.fixture(scope="module")
def reading(reader: HeadReader) -> Reading:
    terms = reader.terms(["the", " door", "king"])
    return reader.read(PROMPT, positions=[2, -1], top=6, terms=terms)


@pytest.fixture(scope="module")
def without_head(demo_cache: Path, reader: HeadReader) -> Callable[[int, int], torch.Tensor]:
    """(T, V) by layer and head: the logits of the prompt, less those with the head's mean written into the last residual
    in place of its output, with the scale of the last norm held; centred over the vocabulary."""
    bridge = TransformerBridge.boot_transformers(str(demo.MODEL), device="cpu", dtype=torch.float32)
    ids = torch.tensor([reader.tokens(PROMPT)])
    with torch.no_grad():
        _, kept = bridge.run_with_cache(ids)
    stream_TD, norm = kept["ln_final.hook_in"][0], bridge.ln_final.original_component
    scale_T1 = (stream_TD.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    cache = open_cache(demo_cache)

    def logits(stream_TD: torch.Tensor) -> torch.Tensor:
        final_TD = (stream_TD - stream_TD.mean(-1, keepdim=True)) / scale_T1 * norm.weight + norm.bias
        logits_TV: torch.Tensor = final_TD @ bridge.W_U + bridge.b_U
        return logits_TV

    def lost(layer: int, head: int) -> torch.Tensor:
        mean_E = moments.mean_z(cache, Heads.grouped([(layer, head)]))[layer][0]
        written_TD = (kept[f"blocks.{layer}.attn.hook_z"][0, :, head] - mean_E) @ bridge.W_O[layer, head]
        with torch.no_grad():
            lost_TV = logits(stream_TD) - logits(stream_TD - written_TD)
        return lost_TV - lost_TV.mean(-1, keepdim=True)

    return lost


def test_it_is_what_the_logits_lose_without_the_head(
    reading: Reading, without_head: Callable[[int, int], torch.Tensor]
) -> None:
    assert reading.no_write is None and len(reading.heads) == 8
    for head in reading.heads:
        lost_V = without_head(head.layer, head.head)[head.position]
        assert head.written is not None
        for tokens, sign in ((head.written.raised, 1), (head.written.lowered, -1)):
            assert len(tokens) == 6 and [t.logit for t in tokens] == sorted(
                (t.logit for t in tokens), reverse=sign == 1
            )
            expected = (sign * lost_V).topk(6).values.tolist()
            assert [sign * t.logit for t in tokens] == pytest.approx(expected, rel=1e-2, abs=1e-3)
            for one in tokens:
                assert one.logit == pytest.approx(float(lost_V[one.id]), rel=1e-2, abs=1e-3)


def test_a_term_is_its_form_with_a_space(
    reader: HeadReader, reading: Reading, without_head: Callable[[int, int], torch.Tensor]
) -> None:
    for head in reading.heads:
        lost_V = without_head(head.layer, head.head)[head.position]
        assert [term.term for term in head.written_terms] == ["the", " door", "king"]
        for term in head.written_terms:
            assert reader.text(term.id) == f" {term.term.strip()}"
            assert term.logit == pytest.approx(float(lost_V[term.id]), rel=1e-2, abs=1e-3)


def test_the_mark_is_of_tokens_that_the_lens_raises_and_the_write_lowers() -> None:
    log_mean_V = torch.tensor([0.4, 0.3794, 0.1, 0.1, 0.02, 0.0001, 0.0005]).log()
    lens_TV = torch.tensor([[0.1, 0.019, 0.41, 0.41, 0.059, 0.0009, 0.0021]]).log()
    written_TV = torch.tensor([[-3.0, -3.0, -0.6, -0.4, -3.0, -3.0, -2.0]])
    # lift 0.25 and 0.05, then 4.1, but lowered by 0.4, 2.95, 9 of a rare token, 4.2
    marked_TV = is_suppressed(written_TV, lens_TV, log_mean_V)
    assert marked_TV[0].nonzero().flatten().tolist() == [2, 6]
    ((written,),) = written_lists(written_TV[None], lens_TV[None], log_mean_V, 7, str)
    assert written.suppressed == [
        WrittenToken(token="6", id=6, logit=-2.0),
        WrittenToken(token="2", id=2, logit=pytest.approx(-0.6)),
    ]
    ((unknown,),) = written_lists(written_TV[None], lens_TV[None], None, 7, str)
    assert unknown.suppressed == [] and unknown.lowered == written.lowered


def test_marked_tokens_of_a_reading_pass_the_thresholds(reader: HeadReader) -> None:
    prompt = "He took her hand and she took his hand and"
    heads = reader.read(prompt, positions=range(10), top=4096, rank="probability").heads
    marks = 0
    for head in heads:
        assert head.written is not None and len(head.written.raised) == 4096
        by_lens = {score.id: score for score in head.lens}
        expected = [
            one
            for one in head.written.lowered
            if one.logit <= -SUPPRESSED_LOGIT
            and by_lens[one.id].probability >= MIN_PROBABILITY
            and (by_lens[one.id].lift or 0.0) >= KNOWN_LIFT
        ]
        assert head.written.suppressed == expected
        marks += len(expected)
    assert marks > 0


def old(lenses: Path) -> Path:
    """As an earlier alens wrote them, without the mean of z."""
    record, directory, files = load_lenses(lenses).record, LensDirectory(lenses), {}
    for layer, heads in record.lenses.by_layer.items():
        tensors = load_lenses(lenses).layer(layer).tensors()
        del tensors["mean_z"]
        files[layer_file(layer)] = directory.put_layer(layer, heads, tensors)
    directory.put_record(dataclasses.replace(record, files={**record.files, **files}))
    return lenses


def test_old_lenses_say_what_to_do_and_take_the_mean_from_their_cache(
    reading: Reading, demo_lenses: Path, demo_cache: Path, copy_of: Copy
) -> None:
    lenses = load_lenses(old(copy_of(demo_lenses)))
    bare = HeadReader(lenses, device="cpu")
    without = bare.read(PROMPT, terms=bare.terms(["king"]))
    assert without.no_write is not None
    assert without.no_write.endswith("name the cache of the fit with --store, or fit again")
    assert {(head.written, len(head.written_terms)) for head in without.heads} == {(None, 0)}
    assert all(len(head.lens) == 10 for head in without.heads)
    with pytest.raises(RequestError, match=r"what heads write is not known: .* does not hold the mean z"):
        bare.writes.logits(3, [1], torch.zeros(1, 2, 32), RowScales(torch.ones(2)))
    named = HeadReader(lenses, store=demo_cache, device="cpu")
    again = named.read(PROMPT, positions=[2, -1], top=6, terms=named.terms(["the", " door", "king"]))
    for head, expected in zip(again.heads, reading.heads, strict=True):
        assert head.written == expected.written and head.written_terms == expected.written_terms


def test_a_frame_has_the_lists_and_terms(reading: Reading) -> None:
    (record, *_) = reading.records()
    head = reading.heads[0]
    assert head.written is not None
    assert record["written.raised"] == [one.token for one in head.written.raised]
    assert record["written.king.logit"] == head.written_terms[2].logit
    document: dict[str, Any] = reading.to_json()["heads"][0]
    assert set(document["written"]) == {"raised", "lowered", "suppressed"}
    assert set(document["written"]["raised"][0]) == {"token", "id", "logit"}
    assert set(document["written_terms"][0]) == {"term", "id", "logit"}
    assert all(math.isfinite(term["logit"]) for term in document["written_terms"])
