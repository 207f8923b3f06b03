"""The file of the reading page: what stands in it, where it may be written, what it leaves alone."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import HeadReader, load_lenses
from alens.errors import RequestError
from alens.job.progress import Progress
from alens.lens.effect_lenses import load_effect_lenses
from alens.lens.lenses import Lenses
from alens.pictures import reading_page
from alens.reading import page_reader
from alens.reading.page_data import PromptPosition
from alens.reading.result import Reading, TokenScore

from ..page_data import held

PROMPTS = ("She went", "x</script><b>y")


@pytest.fixture(scope="module")
def reader(demo_lenses: Path) -> HeadReader:
    return HeadReader(load_lenses(demo_lenses), device="cpu")


@pytest.fixture(scope="module")
def page_data(reader: HeadReader) -> page_reader.PageData:
    return page_reader.read_page(reader, PROMPTS, top=3, terms=reader.terms(["door"]))


def test_the_page_holds_its_numbers_and_nothing_becomes_markup(
    page_data: page_reader.PageData, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    size = reading_page.write_page(path, page_data.to_json())
    text = path.read_text()
    assert size == path.stat().st_size and held(text) == page_data.to_json()
    assert text.count("<script") == 2 and "<b>" not in text
    assert "default-src 'none'" in text and not re.search(r"""(src|href)=["'](?!data:)""", text)


@pytest.mark.parametrize("rank", ["lift", "probability"])
def test_its_lists_are_those_of_the_reader(
    reader: HeadReader, page_data: page_reader.PageData, rank: str
) -> None:
    for prompt in page_data.prompts:
        count = len(prompt["tokens"])
        reading = reader.read(
            prompt["text"], positions=range(count), top=3, rank=rank, terms=reader.terms(["door"])
        )
        assert [page_data.tokens[token][0] for token in prompt["tokens"]] == reading.tokens
        assert [place.position for place in prompt["places"]] == list(range(count))
        for place in prompt["places"]:
            assert_same(page_data, place, reading, rank)


def assert_same(page_data: page_reader.PageData, place: PromptPosition, reading: Reading, rank: str) -> None:
    heads = [head for head in reading.heads if head.position == place.position]
    assert [(head.layer, head.head) for head in heads] == [
        (layer, head) for layer in page_data.layers for head in page_data.heads
    ]
    assert_entries(page_data, place.model, reading.model[place.position])
    assert place.mean_output_kl is not None
    assert place.mean_output_kl / 1000 == pytest.approx(reading.mean_output_kl[place.position], abs=6e-4)
    for cell, head in enumerate(heads):
        assert head.attention is not None and place.looks is not None and place.moves is not None
        total = sum(head.attention.moved)
        assert place.looks[cell] == pytest.approx([1000 * w for w in head.attention.weights], abs=0.6)
        assert place.moves[cell] == pytest.approx([1000 * w / total for w in head.attention.moved], abs=0.6)
        for name in ("lens", "unembedding"):
            said = getattr(place, name)
            assert_entries(page_data, said.lists[rank][cell], getattr(head, name))
            assert said.kl[cell] / 1000 == pytest.approx(getattr(head, f"{name}_kl"), abs=6e-4)
            assert said.entropy[cell] / 1000 == pytest.approx(getattr(head, f"{name}_entropy"), abs=6e-4)
            assert place.kept[0] == 0 and page_data.tokens[0][0] == "door"
            (term,) = getattr(head, f"{name}_terms")
            assert lift(page_data, 0, said.kept[0][cell]) == pytest.approx(term.lift, rel=2e-3)
        for name in ("raised", "lowered", "suppressed"):
            entries, tokens = getattr(place.written, name)[cell], getattr(head.written, name)
            assert [page_data.tokens[token][0] for token in entries[::2]] == [one.token for one in tokens]
            expected = [one.logit for one in tokens]
            assert [value / 1000 for value in entries[1::2]] == pytest.approx(expected, abs=6e-4)
        (term,) = head.written_terms
        assert place.written.kept[0][cell] / 1000 == pytest.approx(term.logit, abs=6e-4)


def assert_entries(page_data: page_reader.PageData, entries: list[int], scores: list[TokenScore]) -> None:
    assert [page_data.tokens[token][0] for token in entries[::2]] == [score.token for score in scores]
    for token, thousandths, score in zip(entries[::2], entries[1::2], scores, strict=True):
        assert lift(page_data, token, thousandths) == pytest.approx(score.lift, rel=2e-3)


def lift(page_data: page_reader.PageData, token: int, thousandths: int) -> float:
    return float(2.718281828 ** ((thousandths - page_data.tokens[token][1]) / 1000))


def test_every_token_of_a_list_is_kept_for_all_heads_where_there_is_room(
    page_data: page_reader.PageData,
) -> None:
    for place in (place for prompt in page_data.prompts for place in prompt["places"]):
        assert place.left_out == 0
        for said in (place.lens, place.unembedding):
            assert [len(grid) for grid in said.kept] == [4] * len(place.kept)
            for lists in said.lists.values():
                for cell, entries in enumerate(lists):
                    for token, thousandths in zip(entries[::2], entries[1::2], strict=True):
                        assert said.kept[place.kept.index(token)][cell] == thousandths


def test_what_heads_write_is_kept_for_all_heads(page_data: page_reader.PageData, reader: HeadReader) -> None:
    assert page_data.no_write is None and "knows, and suppresses" in page_data.suppressed_means
    prompt = page_data.prompts[0]
    ran = reader.run(reader.tokens(prompt["text"]), [0, 3])
    written_HTV = torch.cat(
        [
            reader.writes.logits(layer, (1, 4), reader.values(ran, layer, (1, 4)), reader.scale(ran))
            for layer in (0, 3)
        ]
    )
    text_of = {reader.text(token): token for token in range(4096)}
    for place in prompt["places"]:
        assert [len(grid) for grid in place.written.kept] == [4] * len(place.kept)
        for index, grid in list(zip(place.kept, place.written.kept, strict=True))[1:]:
            logits_H = written_HTV[:, place.position, text_of[page_data.tokens[index][0]]]
            assert [value / 1000 for value in grid] == pytest.approx(logits_H.tolist(), abs=6e-4)
        for lists in (place.written.raised, place.written.lowered):
            assert all(set(entries[::2]) <= set(place.kept) for entries in lists)


def test_some_tokens_are_kept_at_every_position_of_every_prompt(page_data: page_reader.PageData) -> None:
    assert len(page_data.everywhere) == page_reader.EVERYWHERE
    ends = [prompt["places"][-1].model[0] for prompt in page_data.prompts]
    assert page_data.everywhere[: len(ends)] == ends  # what the model says next
    for place in (place for prompt in page_data.prompts for place in prompt["places"]):
        assert place.kept[1 : 1 + page_reader.EVERYWHERE] == page_data.everywhere
        assert len(set(place.kept)) == len(place.kept)


def test_the_stream_after_the_last_layer_is_the_model(page_data: page_reader.PageData) -> None:
    assert page_data.stream_layers == [0, 1, 2, 3]
    for place in (place for prompt in page_data.prompts for place in prompt["places"]):
        stream = place.stream
        assert [len(grid) for grid in stream.kept] == [4] * len(place.kept)
        assert stream.kl[-1] == 0 < min(stream.kl[:-1])
        assert stream.entropy[-1] == pytest.approx(place.entropy, abs=1)
        assert stream.lists["probability"][-1][::2] == place.model[::2]
        assert [grid[-1] for grid in stream.kept] == pytest.approx(place.model_kept, abs=2)


def test_a_layer_of_the_stream_is_its_residual_through_norm_and_unembedding(
    reader: HeadReader, page_data: page_reader.PageData
) -> None:
    prompt = page_data.prompts[0]
    ids = torch.tensor([reader.tokens(prompt["text"])])
    _, kept = reader.model.bridge.run_with_cache(ids)
    with torch.inference_mode():
        final_TD = reader.model.bridge.ln_final(kept["blocks.1.hook_resid_post"][0])
        log_probs_TV = reader.log_probs(final_TD[None])[0]
    text_of = {reader.text(token): token for token in range(4096)}
    for place in prompt["places"]:
        for index, grid in list(zip(place.kept, place.stream.kept, strict=True))[1:]:
            token = text_of[page_data.tokens[index][0]]
            assert grid[1] / 1000 == pytest.approx(float(log_probs_TV[place.position, token]), abs=2e-3)


def test_effects_are_those_of_the_reader_and_others_are_not_known(
    demo_lenses: Path, demo_effect_lenses: Path, page_data: page_reader.PageData
) -> None:
    reader = HeadReader(load_lenses(demo_lenses), effect=load_effect_lenses(demo_effect_lenses), device="cpu")
    data = page_reader.read_page(reader, PROMPTS[:1], top=3, terms=reader.terms(["door"]))
    reading = reader.read(PROMPTS[0], positions=range(2), top=3, terms=reader.terms(["door"]))
    for place in data.prompts[0]["places"]:
        heads = [head for head in reading.heads if head.position == place.position]
        for cell, head in enumerate(heads):
            for name in ("raised", "lowered"):
                entries = getattr(place.effect, name)[cell]
                expected = [] if head.effect is None else getattr(head.effect, name)
                assert [data.tokens[token][0] for token in entries[::2]] == [one.token for one in expected]
                logits = [one.logit for one in expected]
                assert [value / 1000 for value in entries[1::2]] == pytest.approx(logits, abs=6e-4)
            of_term = place.effect.kept[0][cell]
            if head.layer == 0:  # no effect lens was fitted there
                assert of_term is None
            else:
                assert of_term / 1000 == pytest.approx(head.effect_terms[0].logit, abs=6e-4)
    assert {place.effect for prompt in page_data.prompts for place in prompt["places"]} == {None}


def test_the_unembedding_can_be_left_out_where_the_write_is_known(
    reader: HeadReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unembeddings() -> set[bool]:
        data = page_reader.read_page(reader, PROMPTS[:1], top=2, unembedding=False)
        return {place.unembedding is None for place in data.prompts[0]["places"]}

    assert unembeddings() == {True}
    monkeypatch.setattr(type(reader.writes), "lacking", lambda *given: "nobody knows")
    assert unembeddings() == {False}


def test_a_page_of_lenses_without_the_mean_of_z_says_why(
    demo_lenses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lenses, "mean_z", lambda *given: None)  # as lenses of an earlier alens
    data = page_reader.read_page(HeadReader(load_lenses(demo_lenses), device="cpu"), PROMPTS[:1], top=2)
    assert data.no_write is not None and "--store" in data.no_write
    assert {place.written for place in data.prompts[0]["places"]} == {None}


def test_a_large_page_keeps_the_models_tokens_and_says_what_it_leaves_out(
    reader: HeadReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reader, "KEPT_NUMBERS", 100)
    data = page_reader.read_page(reader, PROMPTS[:1], top=8, terms=reader.terms(["door"]))
    for place in data.prompts[0]["places"]:
        assert place.kept[: 1 + len(data.everywhere)] == [0, *data.everywhere] and place.left_out > 0
        assert len(place.kept) == 1 + len(data.everywhere) + page_reader.LEAST_KEPT
        assert set(place.model[::2]) < set(place.kept)
        for said in (place.lens, place.written):  # coarse, but for what stands in a list of the head
            numbers = [value for grid in said.kept for value in grid]
            listed = [entries[1::2] for lists in getattr(said, "lists", {}).values() for entries in lists]
            assert {value % 10 for value in set(numbers) - set(itertools.chain(*listed))} == {0}
        assert {share % 5 for shares in [*place.looks, *place.moves] for share in shares} == {0}


def test_a_page_needs_a_list_of_prompts(reader: HeadReader) -> None:
    with pytest.raises(RequestError, match=r"^prompts is the string 'The door': give a list of strings$"):
        page_reader.read_page(reader, "The door")
    with pytest.raises(RequestError, match=r"^there are no prompts: give one or more$"):
        page_reader.read_page(reader, [])


def test_positions_a_page_has_no_room_for_are_refused(
    reader: HeadReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reader, "MOST_CELLS", 4)
    with pytest.raises(RequestError, match="would have 8 heads x positions, 4 at most: name some with --pos"):
        page_reader.read_page(reader, PROMPTS[:1])
    assert len(page_reader.read_page(reader, PROMPTS[:1], positions=[-1]).prompts[0]["places"]) == 1


def test_blocks_of_positions_give_the_same_numbers(
    reader: HeadReader, page_data: page_reader.PageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alens.reading.head_reader.REUSED_BYTES", 4 * 2 * 4096)  # one position of two heads
    again = page_reader.read_page(reader, PROMPTS, top=3, terms=reader.terms(["door"]))
    for ours, theirs in zip(again.prompts, page_data.prompts, strict=True):
        for a, b in zip(ours["places"], theirs["places"], strict=True):
            assert a.lens.kl == pytest.approx(b.lens.kl, abs=2) and a.position == b.position
            assert [len(lists) for lists in a.lens.lists["lift"]] == [6] * 4


def test_an_earlier_page_is_replaced_and_another_file_is_not(
    page_data: page_reader.PageData, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    reading_page.write_page(path, page_data.to_json())
    reading_page.write_page(path, {**page_data.to_json(), "model": "another"})
    assert held(path.read_text())["model"] == "another"
    mine = tmp_path / "mine.html"
    mine.write_text("<p>my notes</p>")
    with pytest.raises(RequestError, match=r"mine.html is there, and alens did not write it"):
        reading_page.write_page(mine, page_data.to_json())
    assert mine.read_text() == "<p>my notes</p>"


def test_a_path_that_can_be_no_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    for path, message in (
        (tmp_path / "page.png", "a page is written as .html"),
        (tmp_path / "none" / "page.html", "none does not exist: make it"),
        (tmp_path / "folder.html", "is a directory"),
    ):
        with pytest.raises(RequestError, match=message):
            reading_page.check_path(path)


def test_whole_distributions_are_made_once(reader: HeadReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings take most of the time, and the report says how far they are, to the end."""
    made, told = list[int](), list[Progress]()
    lens = HeadReader.lens

    def counted(self: HeadReader, layer: int, *given: Any) -> Any:
        made.append(layer)
        return lens(self, layer, *given)

    monkeypatch.setattr(HeadReader, "lens", counted)
    page_reader.read_page(reader, PROMPTS, top=3, report=told.append)
    assert made == [0, 3] * len(PROMPTS)
    counts = [report.done for report in told if report.stage == "read"]
    assert counts[0] == 0 and counts == sorted(counts) and counts[-1] == told[-1].total
