"""Two prompts, or two sets of them: the heads whose reading changes most, and the tokens that appear.

In: lenses with their model, clean and suspect prompts (section 3.2 of "Attention Lens", arXiv 2310.16270).
Out: a `Comparison`: heads ranked by how far their mean reading of suspect prompts is from that of clean ones, with
what noise alone would give, tokens that appear and vanish, the same of the model's own output, and a detector.
Prompts run once; then work goes head by head.
Shapes: N prompts, P permutations or resamples, H heads, V vocabulary.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from alens.errors import RequestError
from alens.job.progress import Progress, Report, silent
from alens.machine.blocks import row_blocks
from alens.reading.lensed import LensedModel
from alens.statistics import divergences
from alens.studies.comparison import chance, prompt_scores
from alens.studies.comparison.detectors import Detection, Detectors
from alens.studies.comparison.prompt_readings import PromptReadings
from alens.studies.comparison.prompt_sets import PromptSet, labels_of, tokens_of
from alens.studies.comparison.reading_change import ReadingChange, ReadingComparer
from alens.studies.comparison.refits import Refits
from alens.studies.comparison.settings import CompareSettings

FEWEST_FOR_DETECTOR = 5
"""Prompts of either kind: one a fold, and four to fit on."""


@dataclass(frozen=True, kw_only=True)
class HeadChange:
    """One head; its lens, and the unembedding of the same values."""

    layer: int
    head: int
    says_nothing: bool
    """Whether the fit found its lens to do no better than the mean output."""
    lens_kl: float
    """KL(model, lens) in nats, mean over all prompts, clean and suspect: of the mean reading of a prompt, where several
    positions are read."""
    unembedding_kl: float | None
    lens: ReadingChange
    unembedding: ReadingChange | None
    """None where what heads write cannot be unembedded."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of it."""

    clean: str
    suspect: str
    num_clean: int
    num_suspect: int
    position: str | int
    paired: bool
    resamples: int
    more_draws: int
    """Flipped signs beside as many shuffled labels as resamples; 0 for single prompts."""
    spread_ratio: float | None
    """How far suspect readings spread, in units of how far clean ones do, geometric mean over heads; None for single
    prompts, and where readings of some head are all alike."""
    seed: int
    heads: list[HeadChange]
    """The largest change above noise first."""
    model: ReadingChange
    """Of the model's own output."""
    mean_output_kl: float | None
    """KL(model, mean output) on the same prompts: what a reader has that looks at nothing. None where the lenses do not
    say the mean output."""
    detection: Detection | None
    notes: list[str]
    """What a reader should know before the figures."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compare(
    reader: LensedModel,
    clean: PromptSet,
    suspect: PromptSet,
    *,
    test: PromptSet | None = None,
    settings: CompareSettings | None = None,
    report: Report = silent,
) -> Comparison:
    """Compare. With `test`, labelled prompts, the detector is fitted on all of clean and suspect, and judged there.

    Raises `RequestError` for prompts, layers, heads or positions that cannot be read, or a test that cannot be.
    """
    settings = settings or CompareSettings()
    layers, heads = reader.chosen(settings.layers, settings.heads)
    settings = replace(settings, top=min(settings.top, reader.lenses.record.model.d_vocab))
    prompts = [*clean.prompts, *suspect.prompts]
    suspect_N = np.repeat([False, True], [len(clean.prompts), len(suspect.prompts)])
    num_compared = len(prompts)
    if settings.paired:
        check_pairs(clean, suspect)
    notes = _notes(clean, suspect)
    splits, judged_by = _splits(clean, suspect, test, settings)
    if test is not None:
        suspect_N = np.concatenate([suspect_N, labels_of(test)])
        prompts += test.prompts
    ids, rows = tokens_of(reader, prompts, settings.position)
    readings = PromptReadings(reader, ids, rows, layers, heads, report)
    detectors = None
    if splits:
        refits = None if test is not None else _refits(clean, suspect, settings)
        paired = settings.paired and test is None
        detectors = Detectors(splits, suspect_N, judged_by, paired=paired, refits=refits)
    comparer = ReadingComparer(reader, len(clean.prompts), len(suspect.prompts), settings)

    changes, drawn = [], []
    model_NV = readings.model()
    names = [(layer, head) for layer in layers for head in heads]
    report(Progress(stage="compare", total=len(names), unit="heads"))
    for number, (layer, head) in enumerate(names, start=1):
        lens_NV = readings.lens(layer, head)
        plain_NV = None if reader.no_unembedding else readings.unembedding(layer, head)
        change, draws = comparer.change(lens_NV[:num_compared])
        drawn.append(draws)
        plain = None if plain_NV is None else comparer.change(plain_NV[:num_compared], noise=False)[0]
        changes.append(
            HeadChange(
                layer=layer,
                head=head,
                says_nothing=reader.lenses.record.says_nothing(layer, head),
                lens_kl=_kl(model_NV[:num_compared], lens_NV),
                unembedding_kl=None if plain_NV is None else _kl(model_NV[:num_compared], plain_NV),
                lens=change,
                unembedding=plain,
            )
        )
        if detectors:
            detectors.add("lens", lens_NV, (layer, head))
            if plain_NV is not None:
                detectors.add("unembedding", plain_NV)
        report(Progress(stage="compare", done=number, total=len(names), unit="heads"))
    model, _ = comparer.change(model_NV[:num_compared])
    if detectors:
        detectors.add("model", model_NV)
    report(Progress(stage="judging the detectors"))
    detection = detectors.judge(ids) if detectors else None
    return Comparison(
        clean=clean.name,
        suspect=suspect.name,
        num_clean=len(clean.prompts),
        num_suspect=len(suspect.prompts),
        position=settings.position,
        paired=settings.paired,
        resamples=settings.resamples,
        more_draws=comparer.more_draws,
        spread_ratio=_spread_ratio(drawn),
        seed=settings.seed,
        heads=sorted(_adjusted(changes, drawn), key=lambda one: -one.lens.above_noise),
        model=model,
        mean_output_kl=None
        if reader.log_mean_V is None
        else _kl(model_NV[:num_compared], reader.log_mean_V.softmax(-1).expand_as(model_NV)),
        detection=detection,
        notes=notes + (detection.confounds if detection else []),
    )


def _kl(model_NV: torch.Tensor, readings_NV: torch.Tensor) -> float:
    """KL(model, reading) in nats, mean over the prompts of `model_NV`."""
    blocks = row_blocks(len(model_NV), model_NV.device)
    return float(torch.cat([divergences.kl(model_NV[rows], readings_NV[rows]) for rows in blocks]).mean())


def _adjusted(changes: list[HeadChange], drawn: list[chance.Draws | None]) -> list[HeadChange]:
    """With p-values for the largest change of any head."""
    draws = [one for one in drawn if one is not None]
    if not draws:
        return changes
    _, adjusted_H = chance.p_values(draws)
    found = []
    for change, p in zip(changes, adjusted_H.tolist(), strict=True):
        assert change.lens.noise is not None
        noise = replace(change.lens.noise, p_adjusted=p)
        found.append(replace(change, lens=replace(change.lens, noise=noise)))
    return found


def _spread_ratio(drawn: list[chance.Draws | None]) -> float | None:
    ratios = [one.spread_ratio for one in drawn if one is not None and one.spread_ratio is not None]
    return float(np.exp(np.log(ratios).mean())) if len(ratios) == len(drawn) else None


def detectable(clean: PromptSet, suspect: PromptSet) -> bool:
    """Whether there are prompts enough to fit a detector on some and judge it on others."""
    return min(len(clean.prompts), len(suspect.prompts)) >= FEWEST_FOR_DETECTOR


def check_pairs(clean: PromptSet, suspect: PromptSet) -> None:
    """Raises `RequestError` unless the prompts of two sets can be pairs, line by line."""
    for one in (clean, suspect):
        if one.repeated:
            raise RequestError(f"{one.name} has {one.repeated} prompts twice: pairs need distinct ones")
    if len(clean.prompts) != len(suspect.prompts):
        raise RequestError(
            f"{clean.name} has {len(clean.prompts)} prompts and {suspect.name} {len(suspect.prompts)}: pairs need as many"
        )


def _splits(
    clean: PromptSet, suspect: PromptSet, test: PromptSet | None, settings: CompareSettings
) -> tuple[list[prompt_scores.Split], str]:
    """Which prompts detectors are fitted on and judged on; none where there are too few."""
    sizes = (len(clean.prompts), len(suspect.prompts))
    texts = clean.texts + suspect.texts
    if test is not None:
        if min(sizes) < 2:
            raise RequestError(
                "a detector is fitted on two clean and two suspect prompts or more: give files"
            )
        seen = sorted(set(texts) & set(test.texts))
        if seen:
            raise RequestError(
                f"{test.name} has {len(seen)} prompts that stand in --clean or --suspect ({seen[0]!r}): "
                "a detector is not judged on what it was fitted on"
            )
        judged = np.arange(len(texts), len(texts) + len(test.prompts))
        return [prompt_scores.Split(fit=np.arange(len(texts)), judge=judged)], f"prompts of {test.name}"
    if not detectable(clean, suspect):
        return [], ""
    flags, groups = np.repeat([False, True], sizes), _groups(clean, suspect, settings)
    splits = prompt_scores.folds(groups, flags, _num_folds(groups), settings.seed)
    return splits, f"{len(splits)}-fold cross-validation"


def _groups(clean: PromptSet, suspect: PromptSet, settings: CompareSettings) -> list[str]:
    """Of each prompt, what it is fitted on or judged together with: its pair, or its text."""
    if not settings.paired:
        return clean.texts + suspect.texts
    return [str(pair) for one in (clean, suspect) for pair in range(len(one.prompts))]


def _num_folds(groups: list[str]) -> int:
    return min(
        prompt_scores.FOLDS, len(set(groups)) // 2
    )  # two pairs a fold: the twins of one are not compared


def _refits(clean: PromptSet, suspect: PromptSet, settings: CompareSettings) -> Refits:
    flags = np.repeat([False, True], [len(clean.prompts), len(suspect.prompts)])
    groups = _groups(clean, suspect, settings)
    return Refits(groups, flags, paired=settings.paired, seed=settings.seed, num_folds=_num_folds(groups))


def _notes(clean: PromptSet, suspect: PromptSet) -> list[str]:
    found = [
        f"{one.repeated} prompts of {one.name} stood there before and count once"
        for one in (clean, suspect)
        if one.repeated
    ]
    both = len(set(clean.texts) & set(suspect.texts))
    if both:
        found.append(f"{both} prompts stand in both sets")
    return found
