"""Which prompts detectors are fitted on, and which they are judged on.

In: clean and suspect prompts, and perhaps labelled prompts to test on. Out: `Split`s into prompts to fit on and to
judge, the prompts numbered clean first, then suspect, then those to test on; and `Refits`.
"""

import numpy as np

from alens.errors import RequestError
from alens.statistics.area import Labels
from alens.studies.comparison import prompt_scores
from alens.studies.comparison.prompt_scores import Split
from alens.studies.comparison.prompt_sets import PromptSet
from alens.studies.comparison.refits import Refits
from alens.studies.comparison.settings import CompareSettings

FEWEST_FOR_DETECTOR = 5
"""Prompts of either kind: one in each fold, and four to fit on."""


def detectable(clean: PromptSet, suspect: PromptSet) -> bool:
    """Whether there are enough prompts to fit a detector on some and judge it on others."""
    return min(len(clean.prompts), len(suspect.prompts)) >= FEWEST_FOR_DETECTOR


def tested_split(clean: PromptSet, suspect: PromptSet, test: PromptSet) -> Split:
    """Fit on all clean and suspect prompts, and judge on `test`.

    Raises `RequestError` for a single prompt of a kind, or a test that holds prompts to fit on.
    """
    texts = clean.texts + suspect.texts
    if min(len(clean.prompts), len(suspect.prompts)) < 2:
        raise RequestError("a detector is fitted on two clean and two suspect prompts or more: give files")
    seen = sorted(set(texts) & set(test.texts))
    if seen:
        raise RequestError(
            f"{test.name} has {len(seen)} prompts that stand in --clean or --suspect ({seen[0]!r}): "
            "a detector is not judged on what it was fitted on"
        )
    return Split(fit=np.arange(len(texts)), judge=np.arange(len(texts), len(texts) + len(test.prompts)))


def folds(clean: PromptSet, suspect: PromptSet, settings: CompareSettings) -> list[Split]:
    """Cross-validation: each prompt is judged once, and a pair or a repeated text stays in one fold."""
    groups = _groups(clean, suspect, settings)
    return prompt_scores.folds(groups, _flags(clean, suspect), _num_folds(groups), settings.seed)


def refits(clean: PromptSet, suspect: PromptSet, settings: CompareSettings) -> Refits:
    """Fits on prompts that are drawn with replacement, for intervals."""
    groups = _groups(clean, suspect, settings)
    return Refits(
        groups,
        _flags(clean, suspect),
        paired=settings.paired,
        seed=settings.seed,
        num_folds=_num_folds(groups),
    )


def _flags(clean: PromptSet, suspect: PromptSet) -> Labels:
    """Which prompts are suspect."""
    return np.repeat([False, True], [len(clean.prompts), len(suspect.prompts)])


def _groups(clean: PromptSet, suspect: PromptSet, settings: CompareSettings) -> list[str]:
    """The group of each prompt, which is fitted on or judged as a whole: its pair, or its text."""
    if not settings.paired:
        return clean.texts + suspect.texts
    return [str(pair) for one in (clean, suspect) for pair in range(len(one.prompts))]


def _num_folds(groups: list[str]) -> int:
    return min(
        prompt_scores.FOLDS, len(set(groups)) // 2
    )  # two pairs a fold: the twins of one are not compared
