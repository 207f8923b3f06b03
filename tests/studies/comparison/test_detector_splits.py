"""Detectors of a comparison: which prompts they are fitted on, and which judge them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alens.heads import Heads
from alens.reading.lensed_model import LensedModel
from alens.studies.comparison import detector_splits
from alens.studies.comparison.compare import compare
from alens.studies.comparison.prompt_readings import PromptReadings
from alens.studies.comparison.prompt_scores import folds
from alens.studies.comparison.prompt_sets import PromptSet
from alens.studies.comparison.result import Comparison

from .examples import ADJECTIVES, PARTS, QUICK, labelled


def test_files_have_noise_and_a_detector(compared: Comparison) -> None:
    assert len(compared.heads) == 4
    for change in [*(c.lens for c in compared.heads), compared.model]:
        assert change.noise is not None
        assert change.noise.low_of_interval <= change.noise.high_of_interval
        assert 1 / 100 <= change.noise.p <= 1 and 0 < change.noise.expected <= change.noise.high
    assert all(c.lens.noise.p_adjusted >= c.lens.noise.p - 1e-9 for c in compared.heads if c.lens.noise)
    above = [c.lens.above_noise for c in compared.heads]
    assert above == sorted(above, reverse=True)
    judged = compared.detection
    assert judged is not None and (judged.clean, judged.suspect, judged.refits) == (12, 12, 400)
    assert judged.judged_by == "5-fold cross-validation"
    for one in (judged.lens_contrast, judged.model_contrast, judged.last_token):
        assert one.interval_over == "judged prompts and refits" and one.low <= one.auc <= one.high
    assert judged.lens_anomaly.interval_over == judged.length.interval_over == "judged prompts"
    assert judged.length.auc == 0.5 and judged.last_token.auc == 0.5  # pairs of the same length and end
    assert judged.confounds == [] and len(judged.heads) == 4
    body = json.loads(json.dumps(compared.to_json(), allow_nan=False))
    assert body["detection"]["lens_contrast"]["false_positive_rate"][-1] == 1.0


def test_five_pairs_are_judged_two_and_three_at_a_time(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    few = [replace(one, prompts=one.prompts[:5]) for one in sets]
    comparison = compare(reader, *few, settings=replace(QUICK, layers=(0,), paired=True))
    assert comparison.detection is not None and comparison.detection.judged_by == "2-fold cross-validation"
    assert (comparison.detection.clean, comparison.detection.length.auc) == (5, 0.5)


def test_areas_are_of_folds_drawn_again_and_again(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    """One head: each fold fitted by hand."""
    comparison = compare(reader, *sets, settings=replace(QUICK, layers=(3,), heads=(1,), paired=True, seed=1))
    ids = [reader.tokens(text) for one in sets for text in one.texts]
    readings_NV = (
        PromptReadings(reader, ids, [[len(one) - 1] for one in ids], Heads.grid([3], [1]))
        .says("lens", 3, 1)
        .double()
    )
    flags, names = np.repeat([False, True], 12), [str(n % 12) for n in range(24)]
    won, made = 0.0, 0
    for repeat in range(10):
        for split in folds(names, flags, 5, 1, repeat):
            fit_V = [
                readings_NV[[n for n in split.fit if flags[n] == kind]].mean(0) for kind in (False, True)
            ]
            scores = (readings_NV @ (fit_V[1].log() - fit_V[0].log())).numpy()
            held_out = [n for n in split.judge if n < 12]
            pairs = [(scores[12 + s], scores[c]) for s in held_out for c in held_out if s != c]
            won, made = won + sum(s > c for s, c in pairs), made + len(pairs)
    assert comparison.detection is not None
    assert comparison.detection.heads[0].contrast_auc == pytest.approx(won / made, abs=1e-3)
    assert comparison.detection.lens_contrast.auc == comparison.detection.heads[0].contrast_auc < 1.0


def test_what_stands_in_both_sets_is_fitted_on_or_judged_as_one(sets: tuple[PromptSet, PromptSet]) -> None:
    other = replace(sets[1], prompts=sets[0].prompts[:6] + sets[1].prompts[6:])
    texts = sets[0].texts + other.texts
    splits = detector_splits.folds(sets[0], other, QUICK)
    for split in splits:
        assert not {texts[n] for n in split.fit} & {texts[n] for n in split.judge}


def test_a_detector_is_judged_on_a_file_of_labels(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet], tmp_path: Path
) -> None:
    texts = [
        (f"A cat ran by the {word} {what} and", word == "black")
        for word in ADJECTIVES
        for _, what in PARTS[:3]
    ]
    test = labelled(tmp_path / "test.jsonl", list(texts))
    comparison = compare(reader, *sets, test=test, settings=replace(QUICK, paired=True))
    judged = comparison.detection
    assert judged is not None and (judged.clean, judged.suspect, judged.refits) == (3, 3, 0)
    assert judged.judged_by.endswith("test.jsonl")
    assert judged.lens_contrast.interval_over == judged.lens_anomaly.interval_over == "judged prompts"
    assert judged.lens_contrast.auc == 1.0 and judged.lens_contrast.low == pytest.approx(0.025 ** (1 / 3))
    comparison = compare(reader, *sets, test=test, settings=QUICK)
    without = compare(reader, *sets, settings=QUICK)
    assert [c.lens for c in comparison.heads] == [
        c.lens for c in without.heads
    ]  # the test takes no part in changes


def test_trivial_differences_are_told(reader: LensedModel, sets: tuple[PromptSet, PromptSet]) -> None:
    longer = replace(sets[1], prompts=[replace(p, text=p.text + " then he said.") for p in sets[1].prompts])
    comparison = compare(reader, sets[0], longer, settings=QUICK)
    assert comparison.detection is not None
    assert comparison.detection.length.auc == comparison.detection.last_token.auc == 1.0
    assert [note.split(" alone")[0] for note in comparison.notes] == ["length", "the last token"]
