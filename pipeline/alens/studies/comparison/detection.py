"""Detectors of suspect prompts beside each other: lenses, unembedding, the model's output, and trivial ones.

In: readings of prompts one after the other. Out: a `Detection`: how well each tells held-out prompts apart.
The baselines say what a good figure is worth: length and last token know nothing of any head.
Shapes: N prompts, V vocabulary.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alens.studies.comparison.detector import Array, Labels, Scores, Split, score
from alens.studies.comparison.roc import Separation, area, separation


@dataclass(frozen=True, kw_only=True)
class HeadDetection:
    """One head alone."""

    layer: int
    head: int
    contrast_auc: float
    anomaly_auc: float


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Detectors, judged on prompts they were not fitted on."""

    judged_by: str
    """How fitting and judging prompts were parted."""
    clean: int
    """Judged prompts."""
    suspect: int
    lens_contrast: Separation
    """All lenses together; fitted on clean and suspect prompts."""
    lens_anomaly: Separation
    """All lenses together; fitted on clean prompts alone."""
    unembedding_contrast: Separation
    """The same from the heads' unembedding."""
    unembedding_anomaly: Separation
    model_contrast: Separation
    """The same from the model's own output."""
    model_anomaly: Separation
    length: Separation
    """Number of tokens alone, higher for longer prompts."""
    last_token: Separation
    """The last token alone: how much oftener it ends suspect than clean fitting prompts."""
    heads: list[HeadDetection]
    confounds: list[str]
    """Trivial detectors that tell the sets apart: figures of lenses are no evidence then."""


class Detectors:
    """Collects scores as readings come, each reading forgotten after its turn."""

    def __init__(self, splits: Sequence[Split], suspect_N: Labels, judged_by: str, seed: int) -> None:
        self._splits, self._suspect_N, self._judged_by, self._seed = splits, suspect_N, judged_by, seed
        self._flags = [suspect_N[split.judge] for split in splits]
        self._sums: dict[str, tuple[int, Scores]] = {}
        self._heads: list[HeadDetection] = []

    def add(self, kind: str, readings_NV: torch.Tensor, head: tuple[int, int] | None = None) -> None:
        """A reading of all prompts by `lens`, `unembedding` or `model`; `head` also judges it alone."""
        found = score(readings_NV, self._suspect_N, self._splits)
        number, before = self._sums.get(kind, (0, None))
        self._sums[kind] = (number + 1, found if before is None else before + found)
        if head is not None:
            contrast, anomaly = area(found.contrast, self._flags), area(found.anomaly, self._flags)
            self._heads.append(
                HeadDetection(layer=head[0], head=head[1], contrast_auc=contrast, anomaly_auc=anomaly)
            )

    def judge(self, ids: Sequence[Sequence[int]]) -> Detection:
        """All figures; `ids` are the tokens of all prompts."""
        last_N = np.array([tokens[-1] for tokens in ids])
        length_N = np.array([float(len(tokens)) for tokens in ids])
        length = self._plain([length_N[split.judge] for split in self._splits])
        last_token = self._plain([_last_token(last_N, self._suspect_N, split) for split in self._splits])
        judged = {
            f"{kind}_{name}": found for kind in self._sums for name, found in self.separations(kind).items()
        }
        suspect = int(sum(flags.sum() for flags in self._flags))
        return Detection(
            judged_by=self._judged_by,
            clean=sum(map(len, self._flags)) - suspect,
            suspect=suspect,
            length=length,
            last_token=last_token,
            heads=self._heads,
            confounds=_confounds(length, last_token),
            **judged,
        )

    def separations(self, kind: str) -> dict[str, Separation]:
        """By score: `contrast` and `anomaly` of all readings of a kind together."""
        number, summed = self._sums[kind]
        scores = summed.averaged(number)
        halfway = [one > 0 for one in scores.contrast]
        return {
            "contrast": separation(scores.contrast, self._flags, halfway, seed=self._seed),
            "anomaly": separation(scores.anomaly, self._flags, scores.anomaly_alarms(), seed=self._seed),
        }

    def _plain(self, scores: list[Array]) -> Separation:
        return separation(scores, self._flags, None, seed=self._seed)


def _last_token(last_N: Array, suspect_N: Labels, split: Split) -> Array:
    """ln of how often each judged prompt's last token ends suspect fitting prompts, over clean; one added to both."""
    flags = suspect_N[split.fit]
    suspect, clean = Counter(last_N[split.fit][flags].tolist()), Counter(last_N[split.fit][~flags].tolist())
    return np.array(
        [
            np.log((suspect[token] + 1) / (flags.sum() + 2) * ((~flags).sum() + 2) / (clean[token] + 1))
            for token in last_N[split.judge].tolist()
        ]
    )


def _confounds(length: Separation, last_token: Separation) -> list[str]:
    found = []
    for name, judged in (("length", length), ("the last token", last_token)):
        shorter = judged is length and judged.high < 0.5  # length is not fitted: either side tells
        if judged.low > 0.5 or shorter:
            found.append(
                f"{name} alone tells the sets apart (AUC {judged.auc:.3f}): they differ in more than what they ask"
            )
    return found
