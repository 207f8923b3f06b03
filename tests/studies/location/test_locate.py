"""Bias localisation: effects against the saved weights, rankings, and what it refuses."""

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from alens import FitRequest, fit_lenses, load_lenses
from alens.cli.locate_table import head_grid
from alens.errors import RequestError
from alens.fit.settings import FitSettings
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.statistics import relabelling as chance
from alens.studies.location.locate import locate
from alens.studies.location.result import Location
from alens.studies.location.settings import LocateSettings

from .examples import MEN, WOMEN, WORDS, one, prompts


class Direct:
    """Computes the same numbers from the lens files and the model's own z, one prompt after the other."""

    def __init__(self, reader: LensedModel, terms: Sequence[Term]) -> None:
        self.reader, self.terms = reader, terms
        self.ids = sorted({token for term in terms for token in term.ids})

    def log_probs(self, text: str, layer: int, head: int, reading: str) -> torch.Tensor:
        """(T, V) log-probabilities of one head on one text."""
        run = self.reader.run(self.reader.tokens(text), [layer])
        z_TE = run.z_BTHE[layer][0, :, head]
        tensors = load_file(self.reader.lenses.root / f"layer-{layer:02d}.safetensors")
        place = (1, 4).index(head)
        if reading == "lens":
            return (z_TE @ tensors["weight"][place] + tensors["bias"][place]).log_softmax(-1)
        bridge = self.reader.model.bridge
        if reading == "written":
            z_TE = z_TE - tensors["mean_z"][place]
        written_TD = z_TE @ tensors["W_O"][place]
        norm, scale_T = bridge.ln_final.original_component, run.scale_BT[0]
        written_TD = (written_TD - written_TD.mean(-1, keepdim=True)) / scale_T[:, None] * norm.weight
        if reading == "written":
            return (self.reader.log_mean_V + written_TD @ bridge.W_U).log_softmax(-1)
        return ((written_TD + norm.bias) @ bridge.W_U + bridge.b_U).log_softmax(-1)

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


@pytest.fixture(scope="module")
def by_written(reader: LensedModel, terms: list[Term]) -> Location:
    return locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(by="written"))


@pytest.mark.parametrize("reading", ["lens", "unembedding", "written"])
@pytest.mark.parametrize(("layer", "head"), [(0, 1), (3, 4)])
def test_the_effect_is_the_difference_of_mean_log_probabilities(
    by_written: Location, direct: Direct, reading: str, layer: int, head: int
) -> None:
    ours, theirs = (direct.scores(texts, layer, head, reading) for texts in (MEN, WOMEN))
    effect = getattr(one(by_written, layer, head), reading)
    assert effect.effect == pytest.approx(ours.mean() - theirs.mean(), rel=1e-3, abs=1e-4)
    p_ours, p_theirs = (np.concatenate(direct.p(texts, layer, head, reading)) for texts in (MEN, WOMEN))
    assert effect.probability == pytest.approx(p_ours.mean(), rel=1e-3)
    assert effect.control_probability == pytest.approx(p_theirs.mean(), rel=1e-3)
    welch = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((welch.low, welch.high), rel=1e-2, abs=1e-3)


def test_lift_is_over_the_mean_output(location: Location, direct: Direct, reader: LensedModel) -> None:
    assert reader.log_mean_V is not None
    mean = float(reader.log_mean_V[direct.ids].exp().sum())
    effect = one(location, 3, 1).lens
    assert effect.lift == pytest.approx(effect.probability / mean, rel=1e-4)


def test_the_models_own_effect_is_beside(location: Location, direct: Direct) -> None:
    def score(texts: Sequence[str]) -> float:
        own = []
        for text in texts:
            ids = torch.tensor([direct.reader.tokens(text)])
            with torch.no_grad():
                logits_V = direct.reader.model.bridge(ids)[0, -1]
            own.append(float(logits_V.log_softmax(-1)[direct.ids].logsumexp(0)))
        return float(np.mean(own))

    assert location.model.effect == pytest.approx(score(MEN) - score(WOMEN), rel=1e-3)
    assert location.model.p == location.model.p_corrected


def test_heads_are_ranked_by_their_effect(location: Location) -> None:
    effects = [each.lens.effect for each in location.heads]
    assert effects == sorted(effects, reverse=True)
    assert {(each.layer, each.head) for each in location.heads} == {(0, 1), (0, 4), (3, 1), (3, 4)}
    assert [each["rank"] for each in location.to_json()["heads"]] == [1, 2, 3, 4]


def test_heads_are_ranked_and_marked_by_what_they_write(by_written: Location, location: Location) -> None:
    effects = [each.written.effect for each in by_written.heads if each.written is not None]
    assert len(effects) == 4 and effects == sorted(effects, reverse=True)
    for each in by_written.heads:
        assert each.written is not None and by_written.ranked(each) == each.written
        assert each.significant == (each.written.p_corrected <= 0.05)
        assert sum(share.probability for share in each.terms) == pytest.approx(each.written.probability)
        twin = one(location, each.layer, each.head)
        assert twin.written is None and twin.written_kl is None and twin.lens == each.lens
        assert each.written_kl != each.lens_kl == twin.lens_kl
    assert head_grid(by_written).values[3, 1] == one(by_written, 3, 1).written.effect
    assert by_written.to_json()["settings"]["by"] == "written"
    assert f"{effects[0]:+.3f}" in repr(by_written)


def test_what_a_head_writes_can_be_compared_with_the_mean_output(
    reader: LensedModel, terms: list[Term], direct: Direct
) -> None:
    """A head that writes nothing has no effect there."""
    located = locate(reader, terms, prompts(MEN), settings=LocateSettings(by="written"))
    nothing = float(reader.log_mean_V[direct.ids].logsumexp(0))
    for each in located.heads:
        scores = direct.scores(MEN, each.layer, each.head, "written")
        assert each.written.effect == pytest.approx(scores.mean() - nothing, abs=1e-4)


def test_what_is_not_known_of_writes_is_refused(
    reader: LensedModel, terms: list[Term], residual_lenses: Path
) -> None:
    of_stream, settings = (
        LensedModel(load_lenses(residual_lenses), device="cpu"),
        LocateSettings(by="written"),
    )
    with pytest.raises(RequestError, match="what heads write is not known: these are lenses of resid_post"):
        locate(of_stream, terms, prompts(MEN), prompts(WOMEN), settings=settings)
    without_mean = copy.copy(reader)
    without_mean.log_mean_V = None
    with pytest.raises(
        RequestError, match="lacks the model's mean output, to which what heads write is added"
    ):
        locate(without_mean, terms, prompts(MEN), prompts(WOMEN), settings=settings)


def test_heads_are_ranked_by_their_effect_lenses(
    effect_reader: LensedModel, reader: LensedModel, terms: list[Term], location: Location
) -> None:
    """Heads without one are left out, and a note counts them."""
    settings = LocateSettings(by="effect")
    located = locate(effect_reader, terms, prompts(MEN), prompts(WOMEN), settings=settings)
    assert {(each.layer, each.head) for each in located.heads} == {(3, 1), (3, 4)}
    assert located.notes[0].endswith("which are left out: 2 of 4")
    assert effect_reader.effect is not None and effect_reader.log_mean_V is not None
    ids = sorted({token for term in terms for token in term.ids})
    for each in located.heads:
        (map_ED,), (mean_E,) = effect_reader.effect.maps(each.layer, [each.head])
        means = []
        for texts in (MEN, WOMEN):
            scores = []
            for text in texts:
                run = reader.run(reader.tokens(text), [each.layer])
                added_D = (run.z_BTHE[each.layer][0, -1, each.head] - mean_E) @ map_ED
                log_V = (effect_reader.log_mean_V + added_D @ reader.model.W_U_DV).log_softmax(-1)
                scores.append(float(log_V[ids].logsumexp(0)))
            means.append(np.mean(scores))
        assert each.effect is not None and each.effect_kl is not None and located.ranked(each) == each.effect
        assert each.effect.effect == pytest.approx(means[0] - means[1], rel=1e-3, abs=1e-4)
        assert each.written is None and each.lens.effect == one(location, each.layer, each.head).lens.effect
    with pytest.raises(RequestError, match="by effect needs effect lenses of the same model"):
        locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=settings)
    with pytest.raises(RequestError, match=r"of none of the heads 0\.1,0\.4: it has 3\.1,3\.4"):
        none = LocateSettings(by="effect", layers=(0,))
        locate(effect_reader, terms, prompts(MEN), prompts(WOMEN), settings=none)


def test_every_terms_share_adds_up(location: Location) -> None:
    for each in location.heads:
        assert sorted(share.term for share in each.terms) == sorted(WORDS)
        assert sum(s.probability for s in each.terms) == pytest.approx(each.lens.probability)
        assert sum(s.control_probability for s in each.terms) == pytest.approx(each.lens.control_probability)
        rises = [share.probability - share.control_probability for share in each.terms]
        assert rises == sorted(rises, reverse=True)


def test_a_term_given_twice_counts_once_together(
    reader: LensedModel, terms: list[Term], location: Location
) -> None:
    again = locate(reader, [*terms, terms[0]], prompts(MEN), prompts(WOMEN))
    assert one(again, 3, 1).lens.probability == pytest.approx(one(location, 3, 1).lens.probability)


def test_prompts_and_controls_changed_over_turn_the_effects(
    reader: LensedModel, terms: list[Term], location: Location
) -> None:
    turned = locate(reader, terms, prompts(WOMEN), prompts(MEN))
    for each in turned.heads:
        other = one(location, each.layer, each.head)
        assert each.lens.effect == pytest.approx(-other.lens.effect)
        assert each.lens.p_corrected == pytest.approx(other.lens.p_corrected)


def test_pairs_have_the_same_effect_and_another_interval(
    reader: LensedModel, terms: list[Term], location: Location, direct: Direct
) -> None:
    paired = locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(paired=True))
    assert paired.relabellings == 2**4 and paired.smallest_p == pytest.approx(2 / 16)
    effect = one(paired, 3, 1).lens
    assert effect.effect == pytest.approx(one(location, 3, 1).lens.effect)
    differences = direct.scores(MEN, 3, 1) - direct.scores(WOMEN, 3, 1)
    by_scipy = stats.ttest_1samp(differences, 0).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((by_scipy.low, by_scipy.high), rel=1e-2, abs=1e-3)


def test_all_positions_are_those_that_lenses_are_fitted_on(
    reader: LensedModel, terms: list[Term], direct: Direct
) -> None:
    location = locate(reader, terms, prompts(MEN), prompts(WOMEN), settings=LocateSettings(position="all"))
    expected = direct.scores(MEN, 0, 4, first=1).mean() - direct.scores(WOMEN, 0, 4, first=1).mean()
    assert one(location, 0, 4).lens.effect == pytest.approx(expected, rel=1e-3)
    p = np.mean([p_T.mean() for p_T in direct.p(MEN, 0, 4, first=1)])
    assert one(location, 0, 4).lens.probability == pytest.approx(p, rel=1e-3)
    assert sum(share.probability for share in one(location, 0, 4).terms) == pytest.approx(p, rel=1e-3)


def test_without_controls_the_mean_output_is_the_control(
    reader: LensedModel, terms: list[Term], direct: Direct
) -> None:
    location = locate(reader, terms, prompts(MEN))
    assert location.controls is None and reader.log_mean_V is not None
    mean = float(reader.log_mean_V[direct.ids].exp().sum())
    for each in location.heads:
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
    assert location.smallest_p == pytest.approx(1 / 16)
    assert [s.control_probability for s in location.heads[0].terms] == pytest.approx(
        [
            float(reader.log_mean_V[list(term.ids)].exp().sum())
            for share in location.heads[0].terms
            for term in terms
            if term.text == share.term
        ],
        rel=1e-4,
    )


def test_prompts_that_hold_a_term_are_counted(location: Location) -> None:
    assert location.prompts_with_terms == 2  # "man", and "his"


def test_layers_heads_and_readings_can_be_chosen(
    reader: LensedModel, terms: list[Term], location: Location
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
    assert only.lens.effect == pytest.approx(one(location, 3, 4).lens.effect)
    assert only.lens.p_corrected == only.lens.p <= one(location, 3, 4).lens.p_corrected


def test_lenses_of_the_residual_stream_are_ranked_by_layer(
    residual_cache: Path, tmp_path: Path, terms: list[Term]
) -> None:
    settings = FitSettings(
        site="resid_post", lens="tuned", steps=3, batch_rows=128, eval_rows=128, layers=(1, 2)
    )
    fit_lenses(FitRequest(store=residual_cache, lenses=tmp_path / "l", settings=settings, device="cpu"))
    reader = LensedModel(load_lenses(tmp_path / "l"), device="cpu")
    location = locate(reader, terms, prompts(MEN), prompts(WOMEN))
    assert sorted((each.layer, each.head) for each in location.heads) == [(1, 0), (2, 0)]
    assert not location.on_heads and head_grid(location).column_names == ["resid_post"]


def test_the_grid_has_every_effect_in_its_place(location: Location) -> None:
    grid = head_grid(location)
    assert (grid.rows, grid.columns, grid.centre) == ([0, 3], [1, 4], 0.0)
    assert grid.values[3, 1] == one(location, 3, 1).lens.effect
    assert ((0, 4) in grid.marked) == one(location, 0, 4).significant
