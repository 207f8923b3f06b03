"""Prompts with targets, foils and controls of their own: files, scores against the readings themselves, and how well the
model does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from alens.errors import RequestError
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt
from alens.studies.location.locate import locate
from alens.studies.location.questions import Question, answers_of, once, read_questions
from alens.studies.location.result import Location
from alens.studies.location.settings import LocateSettings

from .examples import MEN, WOMEN, one

ANSWERS = [("he", "she"), ("the", "a"), ("she", "he"), ("not", "very")]


def questions(*, foils: bool = True, controls: bool = False) -> list[Question]:
    return [
        Question(
            prompt=Prompt(text=text, source=f"q.jsonl:{number}"),
            target=target,
            foil=foil if foils else None,
            control=control if controls else None,
        )
        for number, (text, control, (target, foil)) in enumerate(zip(MEN, WOMEN, ANSWERS, strict=True), 1)
    ]


def tokens(reader: LensedModel) -> list[list[int]]:
    """Target and foil of each prompt, with a space before them."""
    return [[reader.model.tokenizer.encode(f" {word}").ids[0] for word in pair] for pair in ANSWERS]


class Said:
    """(P, 2) log-probabilities of target and foil by one head, prompt by prompt, from the readings of `reader`."""

    def __init__(self, reader: LensedModel, texts: list[str]) -> None:
        self.reader, self.texts, self.ids = reader, texts, tokens(reader)

    def by(self, reading: str, layer: int, head: int) -> np.ndarray:
        rows = []
        for text, ids in zip(self.texts, self.ids, strict=True):
            run = self.reader.run(self.reader.tokens(text), [layer])
            values = self.reader.values(run, layer, [head])[:, -1:]
            scale = self.reader.scale(run)[-1:]
            if reading == "lens":
                said_V = self.reader.lens(layer, [head], values)[0, 0]
            elif reading == "written":
                said_V = self.reader.writes.logits(layer, [head], values, scale)[0, 0]
            elif reading == "model":
                said_V = self.reader.model_log_probs(run)[-1]
            else:
                said_V = self.reader.unembedding(layer, [head], values, scale)[0, 0]
            rows.append(said_V[ids].double().numpy())
        return np.array(rows)


def difference(said_P2: np.ndarray) -> np.ndarray:
    return said_P2[:, 0] - said_P2[:, 1]


@pytest.fixture(scope="module")
def by_written(reader: LensedModel) -> Location:
    return locate(reader, None, questions(), settings=LocateSettings(by="written"))


@pytest.mark.parametrize("reading", ["lens", "unembedding", "written"])
def test_the_effect_is_the_difference_of_target_and_foil(
    by_written: Location, reader: LensedModel, reading: str
) -> None:
    """For what is written that of logits, for a lens that of log-probabilities beside that of the mean output."""
    ours_P = difference(Said(reader, MEN).by(reading, 3, 4))
    if reading == "lens":
        assert reader.log_mean_V is not None
        ours_P = ours_P - difference(reader.log_mean_V[torch.tensor(tokens(reader))].double().numpy())
    effect = getattr(one(by_written, 3, 4), reading)
    assert effect.effect == pytest.approx(ours_P.mean(), rel=1e-3, abs=1e-4)
    students = stats.ttest_1samp(ours_P, 0).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((students.low, students.high), rel=1e-2, abs=1e-3)
    assert effect.share_above == (ours_P > 0).mean()
    assert by_written.own_answers and by_written.terms == ["he", "the", "she", "not"]
    assert [share.term for share in one(by_written, 3, 4).terms] == ["target", "foil"]


def test_heads_may_lower_their_targets_and_the_test_says_so(by_written: Location) -> None:
    """Without controls lists of terms are tested on one side alone; answers on both."""
    assert by_written.smallest_p == pytest.approx(2 / 16) and by_written.controls is None
    assert by_written.reference == "their foils" and "against their foils" in repr(by_written)


def test_how_well_the_model_does_stands_beside(by_written: Location, reader: LensedModel) -> None:
    own_P = difference(Said(reader, MEN).by("model", 3, 4))
    does = by_written.model_does
    assert does is not None and does.foils and does.controls is None
    assert does.prompts.right == (own_P > 0).mean()
    assert does.prompts.difference == pytest.approx(own_P.mean(), rel=1e-3)
    assert by_written.model.effect == pytest.approx(own_P.mean(), rel=1e-3)
    share = stats.binomtest(int((own_P > 0).sum()), 4).proportion_ci(method="wilson")
    assert (does.prompts.right_low, does.prompts.right_high) == pytest.approx((share.low, share.high))
    students = stats.ttest_1samp(own_P, 0).confidence_interval()
    assert does.prompts.difference_low == pytest.approx(students.low, rel=1e-3)


def test_controls_are_pairs_of_their_prompts(reader: LensedModel) -> None:
    location = locate(reader, None, questions(controls=True))
    ours, theirs = (difference(Said(reader, texts).by("lens", 0, 1)) for texts in (MEN, WOMEN))
    assert one(location, 0, 1).lens.effect == pytest.approx((ours - theirs).mean(), rel=1e-3, abs=1e-4)
    assert location.settings.paired and location.controls == 4 and location.relabellings == 16
    assert location.model_does is not None and location.model_does.controls is not None
    own_P = difference(Said(reader, WOMEN).by("model", 0, 1))
    assert location.model_does.controls.difference == pytest.approx(own_P.mean(), abs=1e-5)


def test_without_foils_the_target_is_counted_from_the_mean_output(reader: LensedModel) -> None:
    location = locate(reader, None, questions(foils=False))
    assert reader.log_mean_V is not None
    mean_P = reader.log_mean_V[torch.tensor(tokens(reader))].double().numpy()[:, 0]
    for reading in ("lens", "unembedding"):
        lifts_P = Said(reader, MEN).by(reading, 3, 1)[:, 0] - mean_P
        effect = getattr(one(location, 3, 1), reading)
        assert effect.effect == pytest.approx(lifts_P.mean(), rel=1e-3, abs=1e-4)
    does = location.model_does
    assert does is not None and not does.foils
    firsts = [int(reader.model_log_probs(reader.run(reader.tokens(text), [0]))[-1].argmax()) for text in MEN]
    right = [first == ids[0] for first, ids in zip(firsts, tokens(reader), strict=True)]
    assert does.prompts.right == np.mean(right)
    assert [share.term for share in location.heads[0].terms] == ["target"]


def test_a_foil_that_is_the_target_turned_round_turns_the_effects(
    by_written: Location, reader: LensedModel
) -> None:
    turned = [Question(prompt=each.prompt, target=each.foil or "", foil=each.target) for each in questions()]
    other = locate(reader, None, turned, settings=LocateSettings(by="written"))
    for each in other.heads:
        assert each.written is not None
        twin = one(by_written, each.layer, each.head).written
        assert twin is not None and each.written.effect == pytest.approx(-twin.effect)
        assert each.written.p_corrected == pytest.approx(twin.p_corrected, abs=0.02)


def test_a_question_counts_once(reader: LensedModel) -> None:
    twice, notes = once([*questions(), questions()[0]])
    assert len(twice) == 4 and notes == ["repeated prompts, which count once: 1"]
    located = locate(reader, None, [*questions(), questions()[0]])
    assert located.prompts == 4 and located.prompts_with_terms == 0


def test_the_token_of_an_answer_is_the_form_with_a_space(reader: LensedModel) -> None:
    answers, targets = answers_of(questions(), reader.model.tokenizer, first_token=False)
    assert targets == [ids[0] for ids in tokens(reader)]
    log_probs_NV = torch.randn(4, reader.lenses.record.model.d_vocab).log_softmax(-1)
    scores = answers.scores(torch.arange(4), log_probs_NV)
    expected = [
        float(row[ids[0]] - row[ids[1]]) for row, ids in zip(log_probs_NV, tokens(reader), strict=True)
    ]
    assert scores.score_N.tolist() == pytest.approx(expected, rel=1e-5)


LINE: dict[str, Any] = {"prompt": "John took his hat, and", "target": "he", "foil": "she"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a"}, "q.jsonl:2 has no target, and other lines have: give each line its own"),
        ({"prompt": "a", "target": "he"}, "q.jsonl:2 has no foil, and 1 of 2 lines have: give each line one"),
        ({**LINE, "control": "b"}, "q.jsonl:1 has no control, and 1 of 2 lines have"),
        ({**LINE, "target": 3}, "q.jsonl:2 has the target 3: give some text"),
        ({**LINE, "foil": " "}, "q.jsonl:2 has the foil ' ': give some text"),
        ({**LINE, "label": "control"}, "q.jsonl:2 is labelled `control`: where prompts have targets"),
        ({"target": "he"}, 'q.jsonl:2 has no prompt: write {"prompt": "..."}'),
    ],
)
def test_a_mixed_file_is_refused_with_its_line(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, (LINE, line))))
    with pytest.raises(RequestError) as refused:
        read_questions(path)
    assert message in str(refused.value)


def test_a_file_without_targets_is_for_a_list_of_terms(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"prompt": "a", "foil": 3}))
    assert read_questions(path) is None and read_questions(tmp_path / "q.txt") is None
    path.write_text("\n")
    with pytest.raises(RequestError, match="holds no prompt"):
        read_questions(path)


def test_what_does_not_go_with_own_targets_is_refused(reader: LensedModel, terms: list[Any]) -> None:
    asked = questions()
    for given, more, message in (
        ((terms, asked), {}, "leave the terms out"),
        ((None, asked, [Prompt(text="a")]), {}, "the control prompt of a line is its field `control`"),
        ((None, asked), {"settings": LocateSettings(position="all")}, "take the position `last`"),
        ((None, [*asked, Prompt(text="a")]), {}, "give all or none a target"),
        ((None, asked[:1]), {}, "1 prompt is too few"),
        (
            (None, [Question(prompt=each.prompt, target="zzqqxx") for each in asked]),
            {},
            "targets and foils: 1 of 1",
        ),
        (
            (None, [Question(prompt=each.prompt, target="he", foil=" he") for each in asked]),
            {},
            "q.jsonl:1: the target 'he' and the foil ' he' are the same token: give another foil",
        ),
    ):
        with pytest.raises(RequestError) as refused:
            locate(reader, *given, **more)
        assert message in str(refused.value)
