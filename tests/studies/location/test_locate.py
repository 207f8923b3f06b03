"""Bias localisation: effects against the saved weights, rankings, and what it refuses."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from alens import FitRequest, HeadReader, fit_lenses, load_lenses
from alens.errors import RequestError
from alens.fit.settings import FitSettings
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt
from alens.reading.terms import Term, to_tokens
from alens.statistics import relabelling as chance
from alens.studies.location.effect_tests import spread_ratio
from alens.studies.location.locate import by_label, locate
from alens.studies.location.locate_map import effect_map
from alens.studies.location.result import HeadEffect, Location
from alens.studies.location.settings import LocateSettings
from alens.studies.location.term_rates import Rates

MEN = ["The old man opened the door, and", "John took his hat, and", "The king said that", "My father was"]
WOMEN = [
    "The old lady opened the door, and",
    "Mary took her hat, and",
    "The queen said that",
    "My mother was",
]
WORDS = ["he", "his", "man"]


def prompts(texts: Sequence[str], label: str | None = None) -> list[Prompt]:
    return [Prompt(text=text, label=label, source=f"p.txt:{n}") for n, text in enumerate(texts, start=1)]


@pytest.fixture(scope="module")
def terms(reader: LensedModel) -> list[Term]:
    return to_tokens(WORDS, reader.model.tokenizer)


@pytest.fixture(scope="module")
def found(reader: LensedModel, terms: list[Term]) -> Location:
    return locate(reader, terms, prompts(MEN), prompts(WOMEN))


def one(found: Location, layer: int, head: int) -> HeadEffect:
    (only,) = [each for each in found.heads if (each.layer, each.head) == (layer, head)]
    return only


class Direct:
    """The same numbers from the lens files and the model's own z, one prompt after the other."""

    def __init__(self, reader: LensedModel, terms: Sequence[Term]) -> None:
        self.reader, self.terms = reader, terms
        self.ids = sorted({token for term in terms for token in term.ids})

    def log_probs(self, text: str, layer: int, head: int, reading: str) -> torch.Tensor:
        """(T, V)"""
        run = self.reader.run(self.reader.tokens(text), [layer])
        z_TE = run.z_BTHE[layer][0, :, head]
        tensors = load_file(self.reader.lenses.root / f"layer-{layer:02d}.safetensors")
        place = (1, 4).index(head)
        if reading == "lens":
            return (z_TE @ tensors["weight"][place] + tensors["bias"][place]).log_softmax(-1)
        bridge = self.reader.model.bridge
        written_TD = z_TE @ tensors["W_O"][place]
        norm, scale_T = bridge.ln_final.original_component, run.scale_BT[0]
        written_TD = (written_TD - written_TD.mean(-1, keepdim=True)) / scale_T[
            :, None
        ] * norm.weight + norm.bias
        return (written_TD @ bridge.W_U + bridge.b_U).log_softmax(-1)

    def p(
        self, texts: Sequence[str], layer: int, head: int, reading: str = "lens", first: int = -1
    ) -> list[np.ndarray]:
        """For each text the terms' probability at positions `first` and later."""
        read = [self.log_probs(text, layer, head, reading)[first:] for text in texts]
        return [log_TV[:, self.ids].exp().sum(-1).detach().double().numpy() for log_TV in read]

    def scores(self, *given, **more) -> np.ndarray:
        return np.array([np.log(p_T).mean() for p_T in self.p(*given, **more)])


@pytest.fixture(scope="module")
def direct(reader: LensedModel, terms: list[Term]) -> Direct:
    return Direct(reader, terms)


@pytest.mark.parametrize("reading", ["lens", "unembedding"])
@pytest.mark.parametrize(("layer", "head"), [(0, 1), (3, 4)])
def test_the_effect_is_the_difference_of_mean_log_probabilities(
    found: Location, direct: Direct, reading: str, layer: int, head: int
) -> None:
    ours, theirs = (direct.scores(texts, layer, head, reading) for texts in (MEN, WOMEN))
    effect = getattr(one(found, layer, head), reading)
    assert effect.effect == pytest.approx(ours.mean() - theirs.mean(), rel=1e-3, abs=1e-4)
    p_ours, p_theirs = (np.concatenate(direct.p(texts, layer, head, reading)) for texts in (MEN, WOMEN))
    assert effect.probability == pytest.approx(p_ours.mean(), rel=1e-3)
    assert effect.control_probability == pytest.approx(p_theirs.mean(), rel=1e-3)
    welch = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((welch.low, welch.high), rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("position", ["last", "all"])
def test_kl_to_the_model_and_that_of_the_mean_output_are_of_the_same_positions(
    reader: LensedModel, terms: list[Term], demo_lenses: Path, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt counts once, however many of its positions are read; rows come in blocks."""
    monkeypatch.setattr("alens.machine.blocks.CPU_ROWS", 3)
    found = locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(position=position))
    head_reader = HeadReader(load_lenses(demo_lenses), device="cpu")
    readings = [
        head_reader.read(
            text, positions=[-1] if position == "last" else reader.fitted_places(len(reader.tokens(text)))
        )
        for text in (*MEN, *WOMEN)
    ]
    nothing = np.mean([np.mean(list(reading.mean_output_kl.values())) for reading in readings])
    assert found.mean_output_kl == pytest.approx(nothing, rel=1e-4)
    for layer, head in ((0, 1), (3, 4)):
        for name in ("lens_kl", "unembedding_kl"):
            by_prompt = [
                np.mean([getattr(of, name) for of in reading.heads if (of.layer, of.head) == (layer, head)])
                for reading in readings
            ]
            assert getattr(one(found, layer, head), name) == pytest.approx(np.mean(by_prompt), rel=1e-4)


def test_without_controls_kl_is_of_the_prompts(
    reader: LensedModel, terms: list[Term], found: Location
) -> None:
    ours, theirs = (locate(reader, terms, prompts(texts)) for texts in (MEN, WOMEN))
    assert ours.mean_output_kl is not None and theirs.mean_output_kl is not None
    assert found.mean_output_kl == pytest.approx((ours.mean_output_kl + theirs.mean_output_kl) / 2)


def test_lift_is_over_the_mean_output(found: Location, direct: Direct, reader: LensedModel) -> None:
    assert reader.log_mean_V is not None
    mean = float(reader.log_mean_V[direct.ids].exp().sum())
    effect = one(found, 3, 1).lens
    assert effect.lift == pytest.approx(effect.probability / mean, rel=1e-4)


def test_the_models_own_effect_is_beside(found: Location, direct: Direct) -> None:
    def score(texts: Sequence[str]) -> float:
        own = []
        for text in texts:
            ids = torch.tensor([direct.reader.tokens(text)])
            with torch.no_grad():
                logits_V = direct.reader.model.bridge(ids)[0, -1]
            own.append(float(logits_V.log_softmax(-1)[direct.ids].logsumexp(0)))
        return float(np.mean(own))

    assert found.model.effect == pytest.approx(score(MEN) - score(WOMEN), rel=1e-3)
    assert found.model.p == found.model.p_corrected


def test_heads_are_ranked_by_their_effect(found: Location) -> None:
    effects = [each.lens.effect for each in found.heads]
    assert effects == sorted(effects, reverse=True)
    assert {(each.layer, each.head) for each in found.heads} == {(0, 1), (0, 4), (3, 1), (3, 4)}
    assert [each["rank"] for each in found.to_json()["heads"]] == [1, 2, 3, 4]


def test_every_terms_share_adds_up(found: Location) -> None:
    for each in found.heads:
        assert sorted(share.term for share in each.terms) == sorted(WORDS)
        assert sum(s.probability for s in each.terms) == pytest.approx(each.lens.probability)
        assert sum(s.control_probability for s in each.terms) == pytest.approx(each.lens.control_probability)
        rises = [share.probability - share.control_probability for share in each.terms]
        assert rises == sorted(rises, reverse=True)


def test_a_term_given_twice_counts_once_together(
    reader: LensedModel, terms: list[Term], found: Location
) -> None:
    again = locate(reader, [*terms, terms[0]], prompts(MEN), prompts(WOMEN))
    assert one(again, 3, 1).lens.probability == pytest.approx(one(found, 3, 1).lens.probability)


def test_prompts_and_controls_changed_over_turn_the_effects(
    reader: LensedModel, terms: list[Term], found: Location
) -> None:
    turned = locate(reader, terms, prompts(WOMEN), prompts(MEN))
    for each in turned.heads:
        other = one(found, each.layer, each.head)
        assert each.lens.effect == pytest.approx(-other.lens.effect)
        assert each.lens.p_corrected == pytest.approx(other.lens.p_corrected)


def test_pairs_have_the_same_effect_and_another_interval(
    reader: LensedModel, terms: list[Term], found: Location, direct: Direct
) -> None:
    paired = locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(paired=True))
    assert paired.relabellings == 2**4 and paired.smallest_p == pytest.approx(2 / 16)
    effect = one(paired, 3, 1).lens
    assert effect.effect == pytest.approx(one(found, 3, 1).lens.effect)
    differences = direct.scores(MEN, 3, 1) - direct.scores(WOMEN, 3, 1)
    by_scipy = stats.ttest_1samp(differences, 0).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((by_scipy.low, by_scipy.high), rel=1e-2, abs=1e-3)


def test_all_positions_are_those_that_lenses_are_fitted_on(
    reader: LensedModel, terms: list[Term], direct: Direct
) -> None:
    found = locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(position="all"))
    expected = direct.scores(MEN, 0, 4, first=1).mean() - direct.scores(WOMEN, 0, 4, first=1).mean()
    assert one(found, 0, 4).lens.effect == pytest.approx(expected, rel=1e-3)
    p = np.mean([p_T.mean() for p_T in direct.p(MEN, 0, 4, first=1)])
    assert one(found, 0, 4).lens.probability == pytest.approx(p, rel=1e-3)
    assert sum(share.probability for share in one(found, 0, 4).terms) == pytest.approx(p, rel=1e-3)


def test_without_controls_the_mean_output_is_the_control(
    reader: LensedModel, terms: list[Term], direct: Direct
) -> None:
    found = locate(reader, terms, prompts(MEN))
    assert found.controls is None and reader.log_mean_V is not None
    mean = float(reader.log_mean_V[direct.ids].exp().sum())
    for each in found.heads:
        scores = direct.scores(MEN, each.layer, each.head)
        assert each.lens.effect == pytest.approx(scores.mean() - np.log(mean), rel=1e-3, abs=1e-4)
        assert each.lens.control_probability == pytest.approx(mean, rel=1e-4)
        signs_RP = np.array(list(itertools.product((1, -1), repeat=len(MEN))))
        sums_R = signs_RP @ (scores - np.log(mean))
        t_RF = chance.redrawn((scores - np.log(mean))[:, None], permutations=9999, seed=0)
        by_redraws = float((t_RF[:, 0] >= t_RF[0, 0]).mean())
        assert each.lens.p == pytest.approx(
            max(np.mean(sums_R >= sums_R[0]), by_redraws), abs=1e-3
        )  # one-sided
    assert found.smallest_p == pytest.approx(1 / 16)
    assert [s.control_probability for s in found.heads[0].terms] == pytest.approx(
        [
            float(reader.log_mean_V[list(term.ids)].exp().sum())
            for share in found.heads[0].terms
            for term in terms
            if term.text == share.term
        ],
        rel=1e-4,
    )


def test_significance_follows_alpha(reader: LensedModel, terms: list[Term], found: Location) -> None:
    assert not any(each.significant for each in found.heads if each.lens.p_corrected > 0.05)
    lax = locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(alpha=0.999))
    assert sum(each.significant for each in lax.heads) > sum(each.significant for each in found.heads)
    assert one(lax, 3, 1).lens.high < one(found, 3, 1).lens.high


def test_too_few_prompts_are_told(reader: LensedModel, terms: list[Term], found: Location) -> None:
    assert found.smallest_p == pytest.approx(2 / 70) and found.can_be_significant
    few = locate(reader, terms, prompts(MEN[:2]), prompts(WOMEN[:2]))
    assert few.smallest_p == pytest.approx(2 / 6) and not few.can_be_significant
    settings = LocateSettings(correction="bonferroni")
    assert not locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=settings).can_be_significant


def test_where_p_does_not_hold_is_told(found: Location) -> None:
    assert found.needs_equal_spread  # 4 of each
    assert not dataclasses.replace(found, prompts=8, controls=8).needs_equal_spread
    in_pairs = dataclasses.replace(found.settings, paired=True)
    assert not dataclasses.replace(found, settings=in_pairs).needs_equal_spread
    assert not dataclasses.replace(found, controls=None).needs_equal_spread
    for ratio, unequal in ((1.9, False), (2.0, True), (0.5, True), (0.6, False), (None, False)):
        assert dataclasses.replace(found, spread_ratio=ratio).spreads_unequally == unequal


def test_the_ratio_of_spreads_is_a_mean_over_heads() -> None:
    random = np.random.default_rng(0)
    scores_PF, nothing = random.normal(size=(9, 3)), np.zeros((9, 3))
    ours, theirs, constant = (
        Rates(log_p_PF=each, p_PF=nothing, by_term_FW=nothing)
        for each in (scores_PF * [8.0, 2.0, 0.5], scores_PF + 3.0, nothing)
    )
    assert spread_ratio(ours, theirs) == pytest.approx(2.0)
    assert spread_ratio(theirs, ours) == pytest.approx(0.5)
    assert spread_ratio(ours, constant) is None


def test_prompts_that_hold_a_term_are_counted(found: Location) -> None:
    assert found.prompts_with_terms == 2  # "man", and "his"


def test_layers_heads_and_readings_can_be_chosen(
    reader: LensedModel, terms: list[Term], found: Location
) -> None:
    some = locate(
        reader,
        terms,
        prompts(MEN),
        prompts(WOMEN),
        settings=LocateSettings(layers=(3,), heads=(4,), compare="none"),
    )
    (only,) = some.heads
    assert (only.layer, only.head, only.unembedding) == (3, 4, None)
    assert only.lens.effect == pytest.approx(one(found, 3, 4).lens.effect)
    assert only.lens.p_corrected == only.lens.p <= one(found, 3, 4).lens.p_corrected


def test_lenses_of_the_residual_stream_are_ranked_by_layer(
    residual_cache: Path, tmp_path: Path, terms: list[Term]
) -> None:
    settings = FitSettings(
        site="resid_post", lens="tuned", steps=3, batch_rows=128, eval_rows=128, layers=(1, 2)
    )
    fit_lenses(FitRequest(store=residual_cache, lenses=tmp_path / "l", settings=settings, device="cpu"))
    reader = LensedModel(load_lenses(tmp_path / "l"), device="cpu")
    found = locate(reader, terms, prompts(MEN), prompts(WOMEN))
    assert sorted((each.layer, each.head) for each in found.heads) == [(1, 0), (2, 0)]
    assert not found.on_heads and effect_map(found).columns == ["resid_post"]


def test_the_map_has_every_effect_in_its_place(found: Location) -> None:
    drawn = effect_map(found)
    assert (list(drawn.rows), list(drawn.columns), drawn.centre) == (["0", "3"], ["1", "4"], 0.0)
    assert drawn.values[1, 0] == one(found, 3, 1).lens.effect
    assert drawn.marks is not None and drawn.marks[0, 1] == one(found, 0, 4).significant


def test_one_file_can_hold_controls() -> None:
    both = [*prompts(MEN, "men"), *prompts(WOMEN, "control"), *prompts(["x"])]
    ours, controls = by_label(both)
    assert [p.text for p in ours] == [*MEN, "x"] and [p.text for p in controls] == WOMEN


@pytest.mark.parametrize(
    ("ours", "theirs", "given", "message"),
    [
        (MEN[:1], WOMEN, {}, "1 prompt is too few to tell a head from chance: give 2 or more"),
        (MEN, WOMEN[:1], {}, "1 control prompt is too few"),
        (MEN, WOMEN[:3], {"paired": True}, "4 prompts and 3 controls are not pairs"),
        (MEN, None, {"paired": True}, "pairs need controls"),
        (MEN, WOMEN, {"layers": (2,)}, "no lens for layer 2"),
        (MEN, WOMEN, {"heads": (0,)}, "no lens for head 0"),
        ([*MEN, " the" * 300], WOMEN, {}, "p.txt:5: the prompt has 300 tokens"),
    ],
)
def test_wrong_requests_are_refused(
    reader: LensedModel, terms: list[Term], ours: list[str], theirs: list[str] | None, given, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        locate(
            reader,
            terms,
            prompts(ours),
            None if theirs is None else prompts(theirs),
            settings=LocateSettings(**given),
        )


def test_no_terms_are_refused(reader: LensedModel) -> None:
    with pytest.raises(RequestError, match="no term was given"):
        locate(reader, [], prompts(MEN), prompts(WOMEN))


def test_lenses_that_do_not_say_the_mean_output_need_controls(demo_lenses: Path, terms: list[Term]) -> None:
    silent = LensedModel(load_lenses(demo_lenses), device="cpu")
    silent.log_mean_V = None
    with pytest.raises(RequestError, match="does not say the model's mean output: give control prompts"):
        locate(silent, terms, prompts(MEN))
    found = locate(silent, terms, prompts(MEN), prompts(WOMEN))
    assert all(each.lens.lift is None for each in found.heads)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"correction": "tukey"}, "correction is 'tukey': it must be one of max-t, holm"),
        ({"position": "first"}, "position is 'first': it must be one of last, all"),
        ({"alternative": "less"}, "alternative is 'less'"),
        ({"alpha": 0.0}, "alpha is 0.0: it must be a number above 0 and less than 1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"permutations": 0}, "permutations is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_are_checked(given: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LocateSettings(**given)
