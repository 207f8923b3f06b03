"""Two prompts or two sets of them compared, against readings of the same prompts one by one."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alens import HeadReader, load_lenses
from alens.cli.compare_table import show_comparison
from alens.lens.directory import LensDirectory, layer_file
from alens.reading.lensed_model import LensedModel
from alens.statistics import divergences
from alens.studies.comparison.compare import compare
from alens.studies.comparison.prompt_sets import PromptSet, prompt_set
from alens.studies.comparison.result import Comparison
from alens.studies.comparison.settings import CompareSettings

from .examples import QUICK


def test_two_prompts_are_as_far_apart_as_their_readings(reader: LensedModel, demo_lenses: Path) -> None:
    one, other = "The old man said", "She read the letter"
    comparison = compare(reader, prompt_set(one), prompt_set(other))
    everything = HeadReader(load_lenses(demo_lenses), device="cpu")
    readings = [everything.read(prompt, top=4096) for prompt in (one, other)]
    for change in comparison.heads:
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
    assert comparison.detection is None and comparison.model.noise is None
    assert [c.lens.divergence for c in comparison.heads] == sorted(
        (c.lens.divergence for c in comparison.heads), reverse=True
    )


def test_kl_to_the_model_and_that_of_the_mean_output_are_of_the_same_prompts(
    reader: LensedModel, demo_lenses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alens.machine.blocks.CPU_ROWS", 1)  # prompts come in blocks
    prompts = ("The old man said", "She read the letter")
    comparison = compare(reader, *map(prompt_set, prompts))
    head_reader = HeadReader(load_lenses(demo_lenses), device="cpu")
    readings = [head_reader.read(prompt) for prompt in prompts]
    nothing = [kl for reading in readings for kl in reading.mean_output_kl.values()]
    assert comparison.mean_output_kl == pytest.approx(np.mean(nothing), rel=1e-4)
    for change in comparison.heads:
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
        for turned, mirrored in ((change.lens, twin.lens), (change.unembedding, twin.unembedding)):
            assert [t.id for t in turned.appear] == [t.id for t in mirrored.vanish]
            assert turned.divergence == pytest.approx(mirrored.divergence)
        assert all(t.suspect > t.clean for t in change.lens.appear)
        assert all(t.suspect < t.clean for t in change.lens.vanish)
    assert there.model.kl != pytest.approx(back.model.kl)


def test_shares_of_all_tokens_are_the_whole(reader: LensedModel) -> None:
    given = CompareSettings(top=100_000)
    comparison = compare(reader, prompt_set("The old man said"), prompt_set("She read"), settings=given)
    for change in comparison.heads:
        assert sum(t.share for t in change.lens.appear + change.lens.vanish) == pytest.approx(1.0)


def test_the_same_prompt_twice_changes_nothing(reader: LensedModel) -> None:
    comparison = compare(reader, prompt_set("The old man"), prompt_set("The old man"))
    assert all(c.lens.divergence == 0 and not c.lens.appear and not c.lens.vanish for c in comparison.heads)
    assert comparison.model.divergence == 0 and comparison.notes == ["1 prompts stand in both sets"]


def test_sets_are_compared_by_their_mean_readings(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    comparison = compare(reader, *sets, settings=replace(QUICK, layers=(3,)))
    for change in comparison.heads:
        means = []
        for one in sets:
            total_V = torch.zeros(4096, dtype=torch.float64)
            for text in one.texts:
                values_HTE = reader.values(reader.run(reader.tokens(text), [3]), 3, [change.head])
                total_V += reader.lens(3, [change.head], values_HTE)[0, -1].double().exp()
            means.append(total_V / len(one.texts))
        assert change.lens.divergence == pytest.approx(float(divergences.jensen_shannon(*means)), rel=1e-4)


def test_heads_are_ranked_and_tested_by_what_they_write(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet], compared: Comparison
) -> None:
    comparison = compare(reader, *sets, settings=replace(QUICK, by="written"))
    above = [change.written.above_noise for change in comparison.heads if change.written is not None]
    assert len(above) == len(compared.heads) and above == sorted(above, reverse=True)
    by_head = {(change.layer, change.head): change for change in compared.heads}
    for change in comparison.heads:
        twin, written = by_head[change.layer, change.head], change.written
        assert written is not None and written.noise is not None and written.noise.p_adjusted is not None
        assert change.lens.noise is None and change.lens.divergence == twin.lens.divergence
        assert twin.written is None and twin.lens.noise is not None
    detection = comparison.detection
    assert detection is not None and detection.written_contrast is not None and compared.detection is not None
    assert detection.lens_contrast.auc == compared.detection.lens_contrast.auc
    assert compared.detection.written_contrast is None
    assert [one.contrast_auc for one in detection.heads] != [
        one.contrast_auc for one in compared.detection.heads
    ]
    assert f"AUC of writes {detection.written_contrast.auc:.3f}" in repr(comparison)
    assert comparison.to_json()["by"] == "written"


def test_heads_are_ranked_by_their_effect_lenses(
    effect_reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    comparison = compare(effect_reader, *sets, settings=replace(QUICK, by="effect"))
    assert {(change.layer, change.head) for change in comparison.heads} == {(3, 1), (3, 4)}
    assert comparison.notes[0].endswith("which are left out: 2 of 4")
    for change in comparison.heads:
        assert change.effect is not None and change.effect.noise is not None and change.written is None
        assert change.effect.noise.p_adjusted is not None and change.effect_kl != change.lens_kl
        assert change.effect.divergence != change.lens.divergence
    assert comparison.detection is not None and comparison.detection.effect_contrast is not None
    assert f"AUC of effect lenses {comparison.detection.effect_contrast.auc:.3f}" in repr(comparison)


def test_the_change_of_a_write_is_that_of_the_mean_output_with_it_added(reader: LensedModel) -> None:
    texts = ("The old man said", "She read the letter")
    comparison = compare(reader, *map(prompt_set, texts), settings=CompareSettings(by="written"))
    for change in comparison.heads:
        readings = []
        for text in texts:
            ran = reader.run(reader.tokens(text), [change.layer])
            z_HTE = reader.values(ran, change.layer, [change.head])
            logits_V = reader.writes.logits(change.layer, [change.head], z_HTE, reader.scale(ran))[0, -1]
            readings.append((reader.log_mean_V + logits_V).softmax(-1))
        expected = float(divergences.jensen_shannon(*readings))
        assert change.written.divergence == pytest.approx(expected, rel=1e-3)
        rise = change.written.appear[0]
        assert (rise.clean, rise.suspect) == pytest.approx(
            [float(p_V[rise.id]) for p_V in readings], rel=1e-3
        )


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


def test_sets_from_one_pool_are_not_called_different(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    pool = [prompt for one in sets for prompt in one.prompts]
    order = np.random.default_rng(0).permutation(len(pool))
    halves = [replace(sets[0], prompts=[pool[n] for n in part]) for part in np.split(order, 2)]
    comparison = compare(reader, *halves, settings=QUICK)
    assert all(c.lens.noise is not None and c.lens.noise.p_adjusted > 0.05 for c in comparison.heads)
    assert comparison.detection is not None and comparison.detection.lens_contrast.low <= 0.5


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
    comparison = compare(planted, *sets, settings=replace(QUICK, paired=True))
    first = comparison.heads[0]
    assert (first.layer, first.head, first.lens.appear[0].id) == (0, 4, 777)
    assert first.lens.noise is not None and first.lens.noise.p_adjusted is not None
    assert first.lens.noise.p_adjusted < 0.025  # at most one of 99 relabellings is as far apart
    assert first.lens.noise.low_of_interval > 2 * first.lens.noise.expected
    assert comparison.detection is not None and comparison.detection.lens_contrast.auc > 0.9
    was = {(c.layer, c.head): c for c in compared.heads}
    assert 777 not in [t.id for t in was[0, 4].lens.appear]
    for change in comparison.heads[1:]:  # no other head was touched
        assert change.lens.divergence == was[change.layer, change.head].lens.divergence
    assert first.unembedding == was[0, 4].unembedding and comparison.model == compared.model


def test_a_prompt_on_one_side_has_a_divergence_and_no_noise(
    reader: LensedModel, sets: tuple[PromptSet, PromptSet]
) -> None:
    comparison = compare(reader, sets[0], prompt_set("Give me the gold"), settings=QUICK)
    assert comparison.model.noise is None and comparison.detection is None
    assert 0 < comparison.heads[0].lens.divergence < math.log(2)


def test_the_seed_decides_what_is_drawn(reader: LensedModel, sets: tuple[PromptSet, PromptSet]) -> None:
    comparisons = [
        compare(reader, *sets, settings=replace(QUICK, heads=(1,), layers=(3,), seed=s)) for s in (0, 0, 1)
    ]
    assert comparisons[0].to_json() == comparisons[1].to_json()
    assert comparisons[0].heads[0].lens.noise != comparisons[2].heads[0].lens.noise
    assert comparisons[0].heads[0].lens.divergence == comparisons[2].heads[0].lens.divergence
    (judged, _, other) = (one.detection for one in comparisons)
    assert judged is not None and other is not None
    assert judged.lens_contrast.low != other.lens_contrast.low  # draws
    assert judged.lens_anomaly.auc != other.lens_anomaly.auc  # folds
