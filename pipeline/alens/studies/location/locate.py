"""Which heads raise a list of terms on some prompts above their rate on control prompts, or each prompt's own answer.

In: lenses with their model, terms, prompts, controls; or prompts with targets of their own (`questions.py`). Out: a
`Location`: for each head the effect, with an interval, a p-value and one corrected for the number of heads; the head that
raises the terms most comes first.
Source: "Attention Lens" (arXiv 2310.16270), section 3.1; intervals, tests and corrections are ours.

With `by="written"` heads are ranked by what they write, with `by="effect"` by what their effect lenses say that they add,
either added to the model's mean output (`reading/head_says.py`).
The score of a prompt is the log of the terms' summed probability at its last position (or the mean over positions),
in nats. The effect is the mean score of the prompts minus that of the controls; exp(effect) is how many times more
probable the terms are. How probable they are in general is part of both means, and cancels. Without controls the
effect is the mean score minus the log of the terms' probability in the model's mean output.
The score of a prompt with a target and a foil of its own is the difference of their log-probabilities; without controls
that of the mean output is taken off, so that a lens that ignores its input has no effect, and of what heads write and of
effect lenses the difference of the two logits is left. Nothing is taken off the unembedding's, or the model's own.
Shapes: F heads (layer by layer), W terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alens.errors import RequestError
from alens.heads import Heads
from alens.job.progress import Progress, Report, silent
from alens.reading.given import GivenReader, prompts_of, reader_of, settings_of, terms_of
from alens.reading.head_says import EFFECT, LENS, UNEMBEDDING, WRITTEN, known
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt
from alens.reading.terms import Term
from alens.statistics.permutation import HeadTests
from alens.studies.location.asked_prompts import AskedPrompts, asked_prompts
from alens.studies.location.effect_tests import (
    model_answers,
    smallest_corrected,
    spread_ratio,
    tested_effects,
)
from alens.studies.location.pursuit import pursuit_rates
from alens.studies.location.questions import CONTROL, Question
from alens.studies.location.result import HeadEffect, Location, ModelAnswers, ReaderEffect, TermShare
from alens.studies.location.settings import LocateSettings
from alens.studies.location.term_rates import PURSUIT, Rates, TermRates, mean_rates, term_rates


def by_label(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of one file, and its controls: those that are labelled `control`."""
    controls = [prompt for prompt in prompts if prompt.label == CONTROL]
    return [prompt for prompt in prompts if prompt.label != CONTROL], controls


def locate(
    reader: GivenReader,
    terms: Sequence[Term | str] | None,
    prompts: Sequence[Prompt | str] | Sequence[Question],
    controls: Sequence[Prompt | str] | None = None,
    *,
    settings: LocateSettings | None = None,
    first_token: bool = False,
    report: Report = silent,
) -> Location:
    """Rank heads by how far they raise `terms` on `prompts` above `controls` (None: above the mean output).

    Where `prompts` are `Question`s, `terms` is None, and heads are ranked by how far they raise the target of each above its
    foil, or above the mean output, and above its control where it has one; `first_token` takes the first token of a target
    or foil of several.
    A text counts once, and so does a pair. Raises `RequestError` for too few prompts, pairs that do not match, or what
    model or lenses lack.
    """
    reader = reader_of(reader)
    asked = asked_prompts(
        reader,
        None if terms is None else terms_of(reader, terms),
        prompts_of(prompts, "prompts", also=Question),
        None if controls is None else prompts_of(controls, "controls"),
        LocateSettings() if settings is None else settings_of(settings, LocateSettings),
        first_token=first_token,
    )
    settings = asked.settings
    if asked.control_ids is None and reader.log_mean_V is None:
        raise RequestError(
            f"{reader.lenses.name} does not say the model's mean output: give control prompts to compare with"
        )
    chosen = reader.chosen(settings.layers, settings.heads)
    lacking: list[str] = []
    if settings.by != PURSUIT:
        chosen, lacking = known(reader, settings.by, chosen)
    elif (why := reader.writes.lacking(chosen)) is not None:
        raise RequestError(f"what heads write is not known: {why}")
    rates = _group_rates(reader, asked, chosen, report)
    report(Progress(stage="permutations"))
    ranked, tests = rates.effects(settings.by)
    (model,), _ = rates.effects("model")
    heads = rates.heads(reader, chosen.pairs, ranked)
    return Location(
        site=reader.lenses.record.site,
        terms=asked.terms,
        own_answers=asked.own_answers,
        position=settings.position,
        prompts=len(asked.ids),
        controls=asked.num_controls,
        prompts_with_terms=asked.with_terms,
        settings=settings,
        relabellings=tests.relabellings,
        exact=tests.exact,
        more_draws=tests.more_draws,
        spread_ratio=rates.spread_ratio(settings.by),
        smallest_p=smallest_corrected(
            len(asked.ids), asked.num_controls, len(chosen), settings, asked.alternative
        ),
        heads=sorted(heads, key=lambda head: -getattr(head, settings.by).effect),
        model=model,
        model_does=rates.model_does(),
        mean_output_kl=rates.kl("mean_output_kl"),
        notes=lacking + asked.notes,
    )


@dataclass(frozen=True, kw_only=True)
class _GroupRates:
    """The rates on prompts and on controls."""

    asked: AskedPrompts
    prompts: TermRates
    controls: TermRates | None
    mean: Rates | None
    """The rates in the mean output; None where the lenses lack it."""
    chance: Rates | None
    """What random tokens explain, where heads are ranked by pursuit."""

    def effects(self, reader: str) -> tuple[list[ReaderEffect], HeadTests]:
        """Effects by a reading of heads, or by `model`."""
        controls = None if self.controls is None else getattr(self.controls, reader)
        beside = self.chance if reader == PURSUIT else self.mean
        if beside is not None and self.asked.scored.against_itself and reader in ("model", UNEMBEDDING):
            beside = replace(
                beside, log_p_PF=0 * beside.log_p_PF
            )  # these two are not counted from the mean output
        return tested_effects(
            getattr(self.prompts, reader), controls, beside, self.asked.settings, self.asked.alternative
        )

    def model_does(self) -> ModelAnswers | None:
        """How well the model itself does where prompts have answers of their own."""
        if not self.asked.own_answers:
            return None
        on_prompts, on_controls = (
            None if rates is None else (rates.model_right_P, rates.model.log_p_PF[:, 0])
            for rates in (self.prompts, self.controls)
        )
        assert on_prompts is not None
        alpha = self.asked.settings.alpha
        return model_answers(on_prompts, on_controls, foils=self.asked.scored.against_itself, alpha=alpha)

    def kl(self, field: str) -> Any:
        """One of the KL fields of `TermRates`, over prompts and controls together; None where it is not known."""
        on_prompts = getattr(self.prompts, field)
        if self.controls is None or on_prompts is None:
            return on_prompts
        num_prompts, num_controls = len(self.asked.ids), len(self.asked.control_ids or ())
        weighted = num_prompts * on_prompts + num_controls * getattr(self.controls, field)
        return weighted / (num_prompts + num_controls)

    def spread_ratio(self, reader: str) -> float | None:
        """The ratio of spreads; None without controls, and where the scores of some head are all equal."""
        if self.controls is None:
            return None
        return spread_ratio(getattr(self.prompts, reader), getattr(self.controls, reader))

    def heads(
        self,
        reader: LensedModel,
        numbers: Sequence[tuple[int, int]],
        ranked: Sequence[ReaderEffect],
    ) -> list[HeadEffect]:
        """The effect of each head, given those by the reading that heads are ranked by."""
        settings = self.asked.settings
        of_reading: dict[str, Sequence[ReaderEffect | None]] = {settings.by: ranked}
        kl_F: dict[str, Any] = {}
        for name in (LENS, UNEMBEDDING, WRITTEN, EFFECT, PURSUIT):
            if name not in of_reading:
                given = getattr(self.prompts, name) is not None
                of_reading[name] = self.effects(name)[0] if given else [None] * len(numbers)
            kl = None if name == PURSUIT else self.kl(f"{name}_kl_F")
            kl_F[name] = [None] * len(numbers) if kl is None else kl.tolist()
        lens = [effect for effect in of_reading[LENS] if effect is not None]
        return [
            HeadEffect(
                layer=layer,
                head=head,
                says_nothing=reader.lenses.record.says_nothing(layer, head),
                lens=lens[f],
                unembedding=of_reading[UNEMBEDDING][f],
                written=of_reading[WRITTEN][f],
                effect=of_reading[EFFECT][f],
                pursuit=of_reading[PURSUIT][f],
                significant=ranked[f].p_corrected <= settings.alpha,
                lens_kl=kl_F[LENS][f],
                unembedding_kl=kl_F[UNEMBEDDING][f],
                written_kl=kl_F[WRITTEN][f],
                effect_kl=kl_F[EFFECT][f],
                terms=self._shares(f, settings.by),
            )
            for f, (layer, head) in enumerate(numbers)
        ]

    def _shares(self, head: int, reading: str) -> list[TermShare]:
        beside = self.chance if reading == PURSUIT else self.mean
        if self.controls is not None:
            beside = getattr(self.controls, reading)
        on_prompts = getattr(self.prompts, reading)
        assert beside is not None  # without controls there is a mean output
        beside_W = beside.by_term_FW[head % len(beside.by_term_FW)]  # the mean output is one reader
        shares = [
            TermShare(term=term, probability=float(probability), control_probability=float(other))
            for term, probability, other in zip(
                self.asked.scored.names, on_prompts.by_term_FW[head], beside_W, strict=True
            )
        ]
        if self.asked.own_answers:
            return shares
        return sorted(shares, key=lambda share: share.control_probability - share.probability)


def _group_rates(reader: LensedModel, asked: AskedPrompts, heads: Heads, report: Report) -> _GroupRates:
    """Run the model on prompts and controls, and take the rates of what is asked."""
    mean = mean_rates(reader, asked.scored)
    if asked.own_answers and mean is not None and not np.isfinite(mean.log_p_PF).all():
        raise RequestError(
            f"the mean output of {reader.lenses.name} has never seen some target or foil: take others"
        )
    rates, control_rates = (
        None
        if ids is None
        else term_rates(reader, asked.scored, ids, heads, asked.settings, report=report, stage=stage)
        for ids, stage in ((asked.ids, "prompts"), (asked.control_ids, "controls"))
    )
    assert rates is not None
    chance = None
    if asked.settings.by == PURSUIT:
        groups = [rates, *([control_rates] if control_rates else [])]
        (pursued, *others), chance = pursuit_rates(
            asked.scored, reader.model.W_U_DV.float(), groups, asked.settings.seed
        )
        rates = replace(rates, pursuit=pursued)
        control_rates = replace(control_rates, pursuit=others[0]) if control_rates else None
    return _GroupRates(asked=asked, prompts=rates, controls=control_rates, mean=mean, chance=chance)
