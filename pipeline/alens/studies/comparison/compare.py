"""Two prompts, or two sets of them: the heads whose reading changes most, and the tokens that appear.

In: lenses with their model, clean and suspect prompts (section 3.2 of "Attention Lens", arXiv 2310.16270).
Out: a `Comparison`: heads ranked by how far their mean reading of suspect prompts is from that of clean ones, with
what noise alone would give, tokens that appear and vanish, the same for the model's own output, and a detector.
The model runs once on each prompt; then the work goes head by head.
Shapes: N prompts, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch

from alens.errors import RequestError
from alens.job.progress import Progress, Report, silent
from alens.machine.blocks import row_blocks
from alens.reading.given import GivenReader, reader_of, settings_of
from alens.reading.head_says import EFFECT, LENS, UNEMBEDDING, WRITTEN, known
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt
from alens.statistics import divergences
from alens.studies.comparison import detector_splits
from alens.studies.comparison.chance import Draws
from alens.studies.comparison.detectors import Detectors
from alens.studies.comparison.prompt_readings import PromptReadings
from alens.studies.comparison.prompt_sets import PromptSet, labels_of, prompt_tokens, set_of
from alens.studies.comparison.reading_change import ReadingComparer, adjusted, spread_ratio
from alens.studies.comparison.result import Comparison, Detection, HeadChange, ReadingChange
from alens.studies.comparison.settings import CompareSettings


def compare(
    reader: GivenReader,
    clean: PromptSet | str | Sequence[Prompt | str],
    suspect: PromptSet | str | Sequence[Prompt | str],
    *,
    test: PromptSet | None = None,
    settings: CompareSettings | None = None,
    report: Report = silent,
) -> Comparison:
    """Rank heads by how their readings change from `clean` to `suspect`.

    With `test`, a set of labelled prompts, the detector is fitted on all clean and suspect prompts, and judged on
    these.
    Raises `RequestError` for prompts, layers, heads or positions that cannot be read, or a test that cannot be made.
    """
    reader = reader_of(reader)
    settings = CompareSettings() if settings is None else settings_of(settings, CompareSettings)
    clean, suspect = set_of(clean, "clean"), set_of(suspect, "suspect")
    heads, lacking = known(reader, settings.by, reader.chosen(settings.layers, settings.heads))
    if settings.paired:
        check_pairs(clean, suspect)
    detectors = _detectors(clean, suspect, test, settings)
    prompts = [*clean.prompts, *suspect.prompts]
    num_compared = len(prompts)
    prompts += [] if test is None else test.prompts
    ids, rows = prompt_tokens(reader, prompts, settings.position)
    readings = PromptReadings(reader, ids, rows, heads, report)
    model_NV = readings.model()
    comparer = ReadingComparer(reader, len(clean.prompts), len(suspect.prompts), settings)

    changes, draws = _head_changes(
        reader, readings, comparer, detectors, heads.pairs, model_NV[:num_compared], settings.by, report
    )
    model, _ = comparer.change(model_NV[:num_compared])
    detection = _judge(detectors, model_NV, ids, report)
    return Comparison(
        clean=clean.name,
        suspect=suspect.name,
        num_clean=len(clean.prompts),
        num_suspect=len(suspect.prompts),
        position=settings.position,
        paired=settings.paired,
        resamples=settings.resamples,
        more_draws=comparer.more_draws,
        spread_ratio=spread_ratio(draws),
        seed=settings.seed,
        by=settings.by,
        heads=sorted(
            adjusted(changes, draws, settings.by), key=lambda one: -one.ranked(settings.by).above_noise
        ),
        model=model,
        mean_output_kl=_mean_output_kl(reader, model_NV[:num_compared]),
        detection=detection,
        notes=lacking + _notes(clean, suspect) + (detection.confounds if detection else []),
    )


def check_pairs(clean: PromptSet, suspect: PromptSet) -> None:
    """Raises `RequestError` unless the prompts of two sets can be pairs, line by line."""
    for one in (clean, suspect):
        if one.repeated:
            raise RequestError(f"{one.name} has {one.repeated} prompts twice: pairs need distinct ones")
    if len(clean.prompts) != len(suspect.prompts):
        raise RequestError(
            f"{clean.name} has {len(clean.prompts)} prompts and {suspect.name} {len(suspect.prompts)}: pairs need equal numbers"
        )


def _detectors(
    clean: PromptSet, suspect: PromptSet, test: PromptSet | None, settings: CompareSettings
) -> Detectors | None:
    """The detectors; None where there are too few prompts to fit on some and judge others."""
    suspect_N = np.repeat([False, True], [len(clean.prompts), len(suspect.prompts)])
    if test is not None:
        split = detector_splits.tested_split(clean, suspect, test)
        suspect_N = np.concatenate([suspect_N, labels_of(test)])
        return Detectors([split], suspect_N, f"prompts of {test.name}")
    if not detector_splits.detectable(clean, suspect):
        return None
    splits = detector_splits.folds(clean, suspect, settings)
    return Detectors(
        splits,
        suspect_N,
        f"{len(splits)}-fold cross-validation",
        paired=settings.paired,
        refits=detector_splits.refits(clean, suspect, settings),
    )


def _head_changes(
    reader: LensedModel,
    readings: PromptReadings,
    comparer: ReadingComparer,
    detectors: Detectors | None,
    names: Sequence[tuple[int, int]],
    model_NV: torch.Tensor,
    by: str,
    report: Report,
) -> tuple[list[HeadChange], list[Draws | None]]:
    """The change of each head over the prompts of `model_NV`, which are the first ones, and what chance gives for the
    reading that heads are ranked by.

    Detectors get the readings of all prompts.
    """
    changes: list[HeadChange] = []
    draws: list[Draws | None] = []
    num_compared = len(model_NV)
    of_heads = [LENS, *((UNEMBEDDING,) if reader.no_unembedding is None else ())]
    of_heads += [by] if by not in of_heads else []
    report(Progress(stage="compare", total=len(names), unit="heads"))
    for number, (layer, head) in enumerate(names, start=1):
        change: dict[str, ReadingChange] = {}
        kl: dict[str, float] = {}
        for name in of_heads:
            reading_NV = readings.says(name, layer, head)
            change[name], drawn = comparer.change(reading_NV[:num_compared], noise=name == by)
            kl[name] = _kl(model_NV, reading_NV)
            if name == by:
                draws.append(drawn)
            if detectors:
                detectors.add(name, reading_NV, (layer, head) if name == by else None)
        changes.append(
            HeadChange(
                layer=layer,
                head=head,
                says_nothing=reader.lenses.record.says_nothing(layer, head),
                lens_kl=kl[LENS],
                unembedding_kl=kl.get(UNEMBEDDING),
                written_kl=kl.get(WRITTEN),
                effect_kl=kl.get(EFFECT),
                lens=change[LENS],
                unembedding=change.get(UNEMBEDDING),
                written=change.get(WRITTEN),
                effect=change.get(EFFECT),
            )
        )
        report(Progress(stage="compare", done=number, total=len(names), unit="heads"))
    return changes, draws


def _judge(
    detectors: Detectors | None, model_NV: torch.Tensor, ids: Sequence[Sequence[int]], report: Report
) -> Detection | None:
    """Judge the detectors, with one by the model's own output; `ids` are the tokens of all prompts."""
    if detectors is not None:
        detectors.add("model", model_NV)
    report(Progress(stage="judging the detectors"))
    return None if detectors is None else detectors.judge(ids)


def _mean_output_kl(reader: LensedModel, model_NV: torch.Tensor) -> float | None:
    if reader.log_mean_V is None:
        return None
    return _kl(model_NV, reader.log_mean_V.softmax(-1).expand_as(model_NV))


def _kl(model_NV: torch.Tensor, readings_NV: torch.Tensor) -> float:
    """KL(model, reading) in nats, mean over the prompts of `model_NV`."""
    blocks = row_blocks(len(model_NV), model_NV.device)
    return float(torch.cat([divergences.kl(model_NV[rows], readings_NV[rows]) for rows in blocks]).mean())


def _notes(clean: PromptSet, suspect: PromptSet) -> list[str]:
    notes = [
        f"{one.repeated} prompts of {one.name} stood there before and count once"
        for one in (clean, suspect)
        if one.repeated
    ]
    both = len(set(clean.texts) & set(suspect.texts))
    return [*notes, f"{both} prompts stand in both sets"] if both else notes
