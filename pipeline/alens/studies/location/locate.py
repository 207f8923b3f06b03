"""Bias localisation: which heads raise a list of terms on some prompts above their rate on control prompts.

In: lenses with their model, terms, prompts, controls. Out: a `Location`: for each head the effect, with an interval,
a p-value and one corrected for the number of heads; the head that raises the terms most comes first.
Source: "Attention Lens" (arXiv 2310.16270), section 3.1; intervals, tests and corrections are ours.

With `by="written"` heads are ranked by what they write, with `by="effect"` by what their effect lenses say that they add,
either added to the model's mean output (`reading/head_says.py`).
The score of a prompt is the log of the terms' summed probability at its last position (or the mean over positions),
in nats. The effect is the mean score of the prompts minus that of the controls; exp(effect) is how many times more
probable the terms are. How probable they are in general is part of both means, and cancels. Without controls the
effect is the mean score minus the log of the terms' probability in the model's mean output.
Shapes: F heads (layer by layer), W terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alens.errors import RequestError
from alens.heads import Heads
from alens.job.progress import Progress, Report, silent
from alens.reading.head_says import EFFECT, LENS, UNEMBEDDING, WRITTEN, known
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt, tokens_of
from alens.reading.terms import Term
from alens.statistics.permutation import HeadTests
from alens.studies.location.effect_tests import smallest_corrected, spread_ratio, tested_effects
from alens.studies.location.prompt_groups import groups
from alens.studies.location.result import HeadEffect, Location, ReaderEffect, TermShare
from alens.studies.location.settings import LocateSettings
from alens.studies.location.term_rates import Rates, TermRates, mean_rates, term_rates

CONTROL = "control"
"""The label of control prompts in a file that holds both."""


def by_label(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of one file, and its controls: those that are labelled `control`."""
    controls = [prompt for prompt in prompts if prompt.label == CONTROL]
    return [prompt for prompt in prompts if prompt.label != CONTROL], controls


def locate(
    reader: LensedModel,
    terms: Sequence[Term],
    prompts: Sequence[Prompt],
    controls: Sequence[Prompt] | None = None,
    *,
    settings: LocateSettings | None = None,
    report: Report = silent,
) -> Location:
    """Rank heads by how far they raise `terms` on `prompts` above `controls` (None: above the mean output).

    A text counts once, and so does a pair. Raises `RequestError` for too few prompts, pairs that do not match, or what
    model or lenses lack.
    """
    settings = settings or LocateSettings()
    prompts, controls, notes = groups(prompts, controls, settings)
    _check(reader, terms, controls)
    chosen, lacking = known(reader, settings.by, reader.chosen(settings.layers, settings.heads))
    ids = [tokens_of(reader, prompt) for prompt in prompts]
    control_ids = None if controls is None else [tokens_of(reader, prompt) for prompt in controls]
    rates = _group_rates(reader, terms, ids, control_ids, chosen, settings, report)
    report(Progress(stage="permutations"))
    ranked, tests = rates.effects(settings.by, settings)
    (model,), _ = rates.effects("model", settings)
    heads = rates.heads(reader, terms, chosen.pairs, ranked, settings)
    num_controls = None if controls is None else len(controls)
    return Location(
        site=reader.lenses.record.site,
        terms=[term.text for term in terms],
        position=settings.position,
        prompts=len(prompts),
        controls=num_controls,
        prompts_with_terms=_with_terms([*ids, *(control_ids or [])], terms),
        settings=settings,
        relabellings=tests.relabellings,
        exact=tests.exact,
        more_draws=tests.more_draws,
        spread_ratio=rates.spread_ratio(settings.by),
        smallest_p=smallest_corrected(len(prompts), num_controls, len(chosen), settings),
        heads=sorted(heads, key=lambda head: -getattr(head, settings.by).effect),
        model=model,
        mean_output_kl=rates.kl("mean_output_kl"),
        notes=lacking + notes,
    )


def _check(reader: LensedModel, terms: Sequence[Term], controls: Sequence[Prompt] | None) -> None:
    if not terms:
        raise RequestError("no term was given: give one or more")
    if controls is None and reader.log_mean_V is None:
        raise RequestError(
            f"{reader.lenses.name} does not say the model's mean output: give control prompts to compare with"
        )


@dataclass(frozen=True, kw_only=True)
class _GroupRates:
    """The rates on prompts and on controls."""

    prompts: TermRates
    controls: TermRates | None
    mean: Rates | None
    """The rates in the mean output; None where the lenses lack it."""
    sizes: tuple[int, int]
    """Numbers of prompts and of controls."""

    def effects(self, reader: str, settings: LocateSettings) -> tuple[list[ReaderEffect], HeadTests]:
        """Effects by a reading of heads, or by `model`."""
        controls = None if self.controls is None else getattr(self.controls, reader)
        return tested_effects(getattr(self.prompts, reader), controls, self.mean, settings)

    def kl(self, field: str) -> Any:
        """One of the KL fields of `TermRates`, over prompts and controls together; None where it is not known."""
        on_prompts = getattr(self.prompts, field)
        if self.controls is None or on_prompts is None:
            return on_prompts
        num_prompts, num_controls = self.sizes
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
        terms: Sequence[Term],
        numbers: Sequence[tuple[int, int]],
        ranked: Sequence[ReaderEffect],
        settings: LocateSettings,
    ) -> list[HeadEffect]:
        """The effect of each head, given those by the reading that heads are ranked by."""
        of_reading: dict[str, Sequence[ReaderEffect | None]] = {settings.by: ranked}
        kl_F: dict[str, Any] = {}
        for name in (LENS, UNEMBEDDING, WRITTEN, EFFECT):
            if name not in of_reading:
                given = getattr(self.prompts, name) is not None
                of_reading[name] = self.effects(name, settings)[0] if given else [None] * len(numbers)
            kl = self.kl(f"{name}_kl_F")
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
                significant=ranked[f].p_corrected <= settings.alpha,
                lens_kl=kl_F[LENS][f],
                unembedding_kl=kl_F[UNEMBEDDING][f],
                written_kl=kl_F[WRITTEN][f],
                effect_kl=kl_F[EFFECT][f],
                terms=self._shares(terms, f, settings.by),
            )
            for f, (layer, head) in enumerate(numbers)
        ]

    def _shares(self, terms: Sequence[Term], head: int, reading: str) -> list[TermShare]:
        beside = self.mean if self.controls is None else getattr(self.controls, reading)
        on_prompts = getattr(self.prompts, reading)
        assert beside is not None  # without controls there is a mean output
        beside_W = beside.by_term_FW[head % len(beside.by_term_FW)]  # the mean output is one reader
        shares = [
            TermShare(term=term.text, probability=float(probability), control_probability=float(other))
            for term, probability, other in zip(terms, on_prompts.by_term_FW[head], beside_W, strict=True)
        ]
        return sorted(shares, key=lambda share: share.control_probability - share.probability)


def _group_rates(
    reader: LensedModel,
    terms: Sequence[Term],
    ids: Sequence[Sequence[int]],
    control_ids: Sequence[Sequence[int]] | None,
    heads: Heads,
    settings: LocateSettings,
    report: Report,
) -> _GroupRates:
    """Run the model on prompts and controls (token ids), and take the rates of the terms."""
    rates = term_rates(reader, terms, ids, heads, settings, report=report, stage="prompts")
    control_rates = None
    if control_ids is not None:
        control_rates = term_rates(
            reader, terms, control_ids, heads, settings, report=report, stage="controls"
        )
    sizes = (len(ids), len(control_ids or ()))
    return _GroupRates(prompts=rates, controls=control_rates, mean=mean_rates(reader, terms), sizes=sizes)


def _with_terms(prompts: Sequence[Sequence[int]], terms: Sequence[Term]) -> int:
    """How many prompts (token ids) hold a term."""
    ids = {token for term in terms for token in term.ids}
    return sum(not ids.isdisjoint(prompt) for prompt in prompts)
