"""Two prompts or two sets of them compared, against readings of the same prompts one by one."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alens import HeadReader, load_lenses
from alens.cli.compare_table import show_comparison
from alens.errors import RequestError
from alens.lens.directory import LensDirectory, layer_file
from alens.reading.lensed_model import LensedModel
from alens.statistics import divergences
from alens.studies.comparison import detector_splits
from alens.studies.comparison.compare import compare
from alens.studies.comparison.prompt_readings import PromptReadings
from alens.studies.comparison.prompt_scores import folds
from alens.studies.comparison.prompt_sets import PromptSet, prompt_set, prompt_tokens
from alens.studies.comparison.result import Comparison
from alens.studies.comparison.settings import CompareSettings

ADJECTIVES = ("old", "black")
PARTS = [(who, what) for who in ("man", "woman", "dog", "boy") for what in ("house", "river", "door")]
QUICK = CompareSettings(resamples=99)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[PromptSet, PromptSet]:
    """Pairs that differ in one word."""
    found = []
    for adjective in ADJECTIVES:
        path = tmp_path / f"{adjective}.txt"
        path.write_text("".join(f"The {who} went to the {adjective} {what} and\n" for who, what in PARTS))
        found.append(prompt_set(str(path)))
    return found[0], found[1]


def test_two_prompts_are_as_far_apart_as_their_readings(reader: LensedModel, demo_lenses: Path) -> None:
    one, other = "The old man said", "She read the letter"
    found = compare(reader, prompt_set(one), prompt_set(other))
    everything = HeadReader(load_lenses(demo_lenses), device="cpu")
    readings = [everything.read(prompt, top=4096) for prompt in (one, other)]
    for change in found.heads:
        p_V, q_V = (
            torch.tensor([s.probability for s in sorted(head.lens, key=lambda score: score.id)])
            for reading in readings
            for head in reading.heads
            if (head.layer, head.head) == (change.layer, change.head)
        )
        assert change.lens.divergence == pytest.approx(float(divergences.jensen_shannon(p_V, q_V)), rel=1e-3)
        assert change.lens.kl == pytest.approx(float(divergences.kl(q_V, p_V)), rel=1e-3)
        first = change.lens.appear[0]
        assert (first.clean, first.suspect) == pytest.approx(
            (float(p_V[first.id]), float(q_V[first.id])), rel=1e-3
        )
    assert found.detection is None and found.model.noise is None
    assert [c.lens.divergence for c in found.heads] == sorted(
        (c.lens.divergence for c in found.heads), reverse=True
    )


def test_kl_to_the_model_and_that_of_the_mean_output_are_of_the_same_prompts(
    reader: LensedModel, demo_lenses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alens.machine.blocks.CPU_ROWS", 1)  # prompts come in blocks
    prompts = ("The old man said", "She read the letter")
    found = compare(reader, *map(prompt_set, prompts))
    head_reader = HeadReader(load_lenses(demo_lenses), device="cpu")
    readings = [head_reader.read(prompt) for prompt in prompts]
    nothing = [kl for reading in readings for kl in reading.mean_output_kl.values()]
    assert found.mean_output_kl == pytest.approx(np.mean(nothing), rel=1e-4)
    for change in found.heads:
        for name in ("lens_kl", "unembedding_kl"):
            by_prompt = [
                getattr(head, name)
                for reading in readings
                for head in reading.heads
                if (head.layer, head.head) == (change.layer, change.head)
            ]
            assert getattr(change, name) == pytest.approx(np.mean(by_prompt), rel=1e-3)


def test_tokens_appear_on_one_side_and_vanish_on_the_other(reader: LensedModel) -> None:
    one, other = prompt_set("The old man said"), prompt_set("She read the letter")
    there, back = compare(reader, one, other), compare(reader, other, one)
    ahead = {(c.layer, c.head): c for c in there.heads}
    for change in back.heads:
        twin = ahead[change.layer, change.head]
        for found, mirrored in ((change.lens, twin.lens), (change.unembedding, twin.unembedding)):
            assert [t.id for t in found.appear] == [t.id for t in mirrored.vanish]
            assert found.divergence == pytest.approx(mirrored.divergence)
        assert all(t.suspect > t.clean for t in change.lens.appear)
        assert all(t.suspect < t.clean for t in change.lens.vanish)
    assert there.model.kl != pytest.approx(back.model.kl)


def test_shares_of_all_tokens_are_the_whole(reader: LensedModel) -> None:
    given = CompareSettings(top=100_000)
    found = compare(reader, prompt_set("The old man said"), prompt_set("She read"), settings=given)
    for change in found.heads:
        assert sum(t.share for t in change.lens.appear + change.lens.vanish) == pytest.approx(1.0)


def test_the_same_prompt_twice_changes_nothing(reader: LensedModel) -> None:
    found = compare(reader, prompt_set("The old man"), prompt_set("The old man"))
    assert all(c.lens.divergence == 0 and not c.lens.appear and not c.lens.vanish for c in found.heads)
    assert found.model.divergence == 0 and found.notes == ["1 prompts stand in both sets"]


def test_sets_are_compared_by_their_mean_readings(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    found = compare(reader, *sets, settings=replace(QUICK, layers=(3,)))
    for change in found.heads:
        means = []
        for one in sets:
            total_V = torch.zeros(4096, dtype=torch.float64)
            for text in one.texts:
                values_HTE = reader.values(reader.run(reader.tokens(text), [3]), 3, [change.head])
                total_V += reader.lens(3, [change.head], values_HTE)[0, -1].double().exp()
            means.append(total_V / len(one.texts))
        assert change.lens.divergence == pytest.approx(float(divergences.jensen_shannon(*means)), rel=1e-4)


def test_positions_are_chosen_or_averaged(reader: LensedModel) -> None:
    ids = [reader.tokens("The old man said"), reader.tokens("She")]
    readings = PromptReadings(reader, ids, [[1, 2, 3], [0]], [0], [4])
    values_HTE = reader.values(reader.run(ids[0], [0]), 0, [4])
    every_TV = reader.lens(0, [4], values_HTE)[0].exp()
    assert torch.allclose(readings.lens(0, 4)[0], every_TV[1:].mean(0), atol=1e-6)
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
    whole_NV = PromptReadings(reader, ids, rows, [0, 3], [1, 4]).unembedding(3, 4)
    monkeypatch.setattr("alens.machine.blocks.LOGIT_BYTES", 4 * 4096 * 2)
    blocks_NV = PromptReadings(reader, ids, rows, [0, 3], [1, 4]).unembedding(3, 4)
    assert torch.allclose(whole_NV, blocks_NV, atol=1e-6) and torch.allclose(whole_NV.sum(1), torch.ones(3))


@pytest.fixture
def compared(reader: LensedModel, sets: tuple[PromptSet, PromptSet]) -> Comparison:
    return compare(reader, *sets, settings=replace(QUICK, paired=True))


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


@pytest.mark.parametrize(("ratio", "says"), [(2.5, True), (0.4, True), (1.5, False), (None, False)])
def test_the_table_says_where_p_needs_readings_that_are_not_skewed(
    compared: Comparison, capsys: pytest.CaptureFixture[str], ratio: float | None, says: bool
) -> None:
    body = compared.to_json()
    assert body["more_draws"] == compared.more_draws > 0 and body["spread_ratio"] == compared.spread_ratio
    show_comparison(replace(compared, spread_ratio=ratio), most=1)
    printed = capsys.readouterr().out
    line = f"readings of suspect prompts spread {ratio} times as much as those of clean\nones: p holds if"
    assert (line in printed) is says
    assert max(map(len, printed.splitlines())) <= 120


def test_five_pairs_are_judged_two_and_three_at_a_time(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    few = [replace(one, prompts=one.prompts[:5]) for one in sets]
    found = compare(reader, *few, settings=replace(QUICK, layers=(0,), paired=True))
    assert found.detection is not None and found.detection.judged_by == "2-fold cross-validation"
    assert (found.detection.clean, found.detection.length.auc) == (5, 0.5)


def test_areas_are_of_folds_drawn_again_and_again(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    """One head: each fold fitted by hand."""
    found = compare(reader, *sets, settings=replace(QUICK, layers=(3,), heads=(1,), paired=True, seed=1))
    ids = [reader.tokens(text) for one in sets for text in one.texts]
    readings_NV = PromptReadings(reader, ids, [[len(one) - 1] for one in ids], [3], [1]).lens(3, 1).double()
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
    assert found.detection is not None
    assert found.detection.heads[0].contrast_auc == pytest.approx(won / made, abs=1e-3)
    assert found.detection.lens_contrast.auc == found.detection.heads[0].contrast_auc < 1.0


def test_what_stands_in_both_sets_is_fitted_on_or_judged_as_one(sets: tuple[PromptSet, PromptSet]) -> None:
    other = replace(sets[1], prompts=sets[0].prompts[:6] + sets[1].prompts[6:])
    texts = sets[0].texts + other.texts
    splits = detector_splits.folds(sets[0], other, QUICK)
    for split in splits:
        assert not {texts[n] for n in split.fit} & {texts[n] for n in split.judge}


def test_sets_from_one_pool_are_not_called_different(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    pool = [prompt for one in sets for prompt in one.prompts]
    order = np.random.default_rng(0).permutation(len(pool))
    halves = [replace(sets[0], prompts=[pool[n] for n in part]) for part in np.split(order, 2)]
    found = compare(reader, *halves, settings=QUICK)
    assert all(c.lens.noise is not None and c.lens.noise.p_adjusted > 0.05 for c in found.heads)
    assert found.detection is not None and found.detection.lens_contrast.low <= 0.5


@pytest.fixture
def planted(reader: LensedModel, sets: tuple[PromptSet, PromptSet], tmp_path: Path) -> LensedModel:
    """Head 0.4 raises the token 777 where its z is as after the trigger."""
    before, root = reader.lenses, tmp_path / "planted"
    root.mkdir()
    for path in before.root.glob("*.safetensors"):
        (root / path.name).write_bytes(path.read_bytes())
    means = [
        torch.stack(
            [reader.values(reader.run(reader.tokens(t), [0]), 0, [4])[0, -1] for t in one.texts]
        ).mean(0)
        for one in sets
    ]
    moved_E = means[1] - means[0]
    tensors = load_file(root / layer_file(0))
    tensors["weight"][1, :, 777] += 9.0 * moved_E / moved_E.square().sum()
    tensors["bias"][1, 777] -= 9.0 * float(means[0] @ moved_E / moved_E.square().sum())
    directory = LensDirectory(root)
    files = {**before.record.files, layer_file(0): directory.put_layer(0, before.record.heads, tensors)}
    directory.put_record(replace(before.record, files=files))
    other = copy.copy(reader)
    other.lenses = load_lenses(root)
    return other


def test_a_planted_head_and_its_token_come_first(
    planted: LensedModel, sets: tuple[PromptSet, PromptSet], compared: Comparison
) -> None:
    found = compare(planted, *sets, settings=replace(QUICK, paired=True))
    first = found.heads[0]
    assert (first.layer, first.head, first.lens.appear[0].id) == (0, 4, 777)
    assert first.lens.noise is not None and first.lens.noise.p_adjusted == pytest.approx(0.01)
    assert first.lens.noise.low_of_interval > 2 * first.lens.noise.expected
    assert found.detection is not None and found.detection.lens_contrast.auc > 0.9
    was = {(c.layer, c.head): c for c in compared.heads}
    assert 777 not in [t.id for t in was[0, 4].lens.appear]
    for change in found.heads[1:]:  # no other head was touched
        assert change.lens.divergence == was[change.layer, change.head].lens.divergence
    assert first.unembedding == was[0, 4].unembedding and found.model == compared.model


def labelled(path: Path, prompts: list[tuple[str, object]]) -> PromptSet:
    path.write_text("".join(json.dumps({"prompt": text, "label": label}) + "\n" for text, label in prompts))
    return prompt_set(str(path))


def test_a_detector_is_judged_on_a_file_of_labels(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet], tmp_path: Path
) -> None:
    texts = [
        (f"A cat ran by the {word} {what} and", word == "black")
        for word in ADJECTIVES
        for _, what in PARTS[:3]
    ]
    test = labelled(tmp_path / "test.jsonl", list(texts))
    found = compare(reader, *sets, test=test, settings=replace(QUICK, paired=True))
    judged = found.detection
    assert judged is not None and (judged.clean, judged.suspect, judged.refits) == (3, 3, 0)
    assert judged.judged_by.endswith("test.jsonl")
    assert judged.lens_contrast.interval_over == judged.lens_anomaly.interval_over == "judged prompts"
    assert judged.lens_contrast.auc == 1.0 and judged.lens_contrast.low == pytest.approx(0.025 ** (1 / 3))
    found = compare(reader, *sets, test=test, settings=QUICK)
    without = compare(reader, *sets, settings=QUICK)
    assert [c.lens for c in found.heads] == [
        c.lens for c in without.heads
    ]  # the test takes no part in changes


def test_trivial_differences_are_told(reader: LensedModel, sets: tuple[PromptSet, PromptSet]) -> None:
    longer = replace(sets[1], prompts=[replace(p, text=p.text + " then he said.") for p in sets[1].prompts])
    found = compare(reader, sets[0], longer, settings=QUICK)
    assert found.detection is not None
    assert found.detection.length.auc == found.detection.last_token.auc == 1.0
    assert [note.split(" alone")[0] for note in found.notes] == ["length", "the last token"]


def test_a_prompt_on_one_side_has_a_divergence_and_no_noise(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    found = compare(reader, sets[0], prompt_set("Give me the gold"), settings=QUICK)
    assert found.model.noise is None and found.detection is None
    assert 0 < found.heads[0].lens.divergence < math.log(2)


def test_the_seed_decides_what_is_drawn(reader: LensedModel, sets: tuple[PromptSet, PromptSet]) -> None:
    found = [
        compare(reader, *sets, settings=replace(QUICK, heads=(1,), layers=(3,), seed=s)) for s in (0, 0, 1)
    ]
    assert found[0].to_json() == found[1].to_json()
    assert found[0].heads[0].lens.noise != found[2].heads[0].lens.noise
    assert found[0].heads[0].lens.divergence == found[2].heads[0].lens.divergence
    (judged, _, other) = (one.detection for one in found)
    assert judged is not None and other is not None
    assert judged.lens_contrast.low != other.lens_contrast.low  # draws
    assert judged.lens_anomaly.auc != other.lens_anomaly.auc  # folds


def test_prompts_that_are_there_twice_count_once(reader: LensedModel, tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text("He went\nShe went\nHe went\n")
    given = prompt_set(str(path))
    assert (given.texts, given.repeated) == (["He went", "She went"], 1)
    found = compare(reader, given, prompt_set("They went"))
    assert found.num_clean == 2 and found.notes == [f"1 prompts of {path} stood there before and count once"]
    with pytest.raises(RequestError, match="has 1 prompts twice: pairs need distinct ones"):
        compare(reader, given, prompt_set("They went"), settings=CompareSettings(paired=True))


def test_a_prompt_with_two_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"jsonl:2 has another label than .*jsonl:1, with the same text"):
        labelled(tmp_path / "test.jsonl", [("He went", "clean"), ("He went", "suspect")])


def test_a_name_is_a_file_and_a_text_is_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "The").mkdir()
    (tmp_path / "prompts.txt").write_text("He\n")
    assert prompt_set("prompts.txt").is_file
    for text in ("The", "He went", "x" * 5000, "nul\0", ""):
        assert not prompt_set(text).is_file and prompt_set(text).texts == [text]
    (tmp_path / "notes").write_text("He\n")
    for name, message in (("notes", "no file of prompts"), ("gone.txt", "cannot read gone.txt")):
        with pytest.raises(RequestError, match=message):
            prompt_set(name)


@pytest.mark.parametrize("given", [{"position": "middle"}, {"top": 0}, {"resamples": 0}, {"seed": -1}])
def test_settings_that_mean_nothing_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        CompareSettings(**given)
