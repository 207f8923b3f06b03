"""Detectors of suspect prompts, compared: lenses, unembedding, the model's output, and trivial ones.

In: readings of prompts one after the other. Out: a `Detection`: how well each tells held-out prompts apart.
The trivial ones say what a good figure is worth: length and last token know nothing of any head.
Shapes: N prompts, V vocabulary.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from alens.statistics.area import Comparisons, Labels, comparisons
from alens.statistics.bootstrap import Array
from alens.statistics.separation import Separation, separation
from alens.studies.comparison.prompt_scores import Scores, Split, score
from alens.studies.comparison.refits import Refits
from alens.studies.comparison.result import Detection, HeadDetection


class Detectors:
    """Collects the scores of readings. Readings come one after the other and are not kept."""

    def __init__(
        self,
        splits: Sequence[Split],
        suspect_N: Labels,
        judged_by: str,
        *,
        paired: bool = False,
        refits: Refits | None = None,
    ) -> None:
        """`refits`, where there are any, give the areas of contrasts; `splits` give everything else."""
        self._splits, self._suspect_N, self._judged_by = splits, suspect_N, judged_by
        self._paired, self._refits = paired, refits
        self._flags = [suspect_N[split.judge] for split in splits]
        self._sums: dict[str, tuple[int, Scores]] = {}
        self._refitted: dict[str, Array] = {}
        self._heads: list[HeadDetection] = []

    def add(self, kind: str, readings_NV: torch.Tensor, head: tuple[int, int] | None = None) -> None:
        """Add a reading of all prompts by `lens`, `unembedding` or `model`; with `head` it is also judged alone."""
        scores = score(readings_NV, self._suspect_N, self._splits)
        number, before = self._sums.get(kind, (0, None))
        self._sums[kind] = (number + 1, scores if before is None else before + scores)
        refitted_BN = None if self._refits is None else self._refits.scores(readings_NV)
        if refitted_BN is not None:
            self._refitted[kind] = self._refitted.get(kind, 0.0) + refitted_BN
        if head is not None:
            self._heads.append(
                HeadDetection(
                    layer=head[0],
                    head=head[1],
                    contrast_auc=self._compared(scores.contrast, refitted_BN).area,
                    anomaly_auc=self._compared(scores.anomaly).area,
                )
            )

    def judge(self, ids: Sequence[Sequence[int]]) -> Detection:
        """All figures; `ids` are the tokens of all prompts."""
        length_N = np.array([float(len(tokens)) for tokens in ids])
        length = self._separation([length_N[split.judge] for split in self._splits])
        last_token = self._last_token(np.array([tokens[-1] for tokens in ids]))
        judged = {
            f"{kind}_{name}": separated
            for kind in self._sums
            for name, separated in self.separations(kind).items()
        }
        suspect = int(sum(flags.sum() for flags in self._flags))
        return Detection(
            judged_by=self._judged_by,
            refits=0 if self._refits is None else len(self._refits.undrawn_BN),
            clean=sum(map(len, self._flags)) - suspect,
            suspect=suspect,
            length=length,
            last_token=last_token,
            heads=self._heads,
            confounds=_confounds(length, last_token),
            **judged,
        )

    def separations(self, kind: str) -> dict[str, Separation]:
        """How well all readings of a kind together separate prompts, by `contrast` and by `anomaly`."""
        number, summed = self._sums[kind]
        scores = summed.averaged(number)
        halfway = [one > 0 for one in scores.contrast]
        return {
            "contrast": self._separation(scores.contrast, halfway, self._refitted.get(kind)),
            "anomaly": self._separation(scores.anomaly, scores.anomaly_alarms()),
        }

    def _last_token(self, last_N: Array) -> Separation:
        refitted_BN = None
        if self._refits is not None:
            _, token_N = np.unique(last_N, return_inverse=True)
            refitted_BN = self._refits.scores(torch.eye(int(token_N.max()) + 1)[token_N], prior=1.0)
        scores = [_last_token(last_N, self._suspect_N, split) for split in self._splits]
        return self._separation(scores, refitted_BN=refitted_BN)

    def _separation(
        self, scores: list[Array], alarms: list[Labels] | None = None, refitted_BN: Array | None = None
    ) -> Separation:
        interval = None
        if self._refits is not None and refitted_BN is not None:
            interval = self._refits.interval(refitted_BN)
        return separation(scores, self._flags, alarms, self._compared(scores, refitted_BN), interval)

    def _compared(self, scores: list[Array], refitted_BN: Array | None = None) -> Comparisons:
        if self._refits is not None and refitted_BN is not None:
            return self._refits.held_out(refitted_BN)
        places = np.unique(np.concatenate([split.judge for split in self._splits]))
        scores_BN, judged_BN = np.zeros((2, len(self._splits), len(self._suspect_N)))
        for number, (split, judged) in enumerate(zip(self._splits, scores, strict=True)):
            scores_BN[number, split.judge], judged_BN[number, split.judge] = judged, 1.0
        return comparisons(
            scores_BN[:, places], judged_BN[:, places] > 0, self._suspect_N[places], paired=self._paired
        )


def _last_token(last_N: Array, suspect_N: Labels, split: Split) -> Array:
    """For each judged prompt, the log of how often its last token ends suspect fitting prompts over how often it
    ends clean ones; one is added to both counts."""
    flags = suspect_N[split.fit]
    suspect, clean = Counter(last_N[split.fit][flags].tolist()), Counter(last_N[split.fit][~flags].tolist())
    return np.array(
        [
            np.log((suspect[token] + 1) / (flags.sum() + 2) * ((~flags).sum() + 2) / (clean[token] + 1))
            for token in last_N[split.judge].tolist()
        ]
    )


def _confounds(length: Separation, last_token: Separation) -> list[str]:
    confounds = []
    for name, judged in (("length", length), ("the last token", last_token)):
        shorter = judged is length and judged.high < 0.5  # length is not fitted: either side tells
        if judged.low > 0.5 or shorter:
            confounds.append(
                f"{name} alone tells the sets apart (AUC {judged.auc:.3f}): they differ in more than what they ask"
            )
    return confounds
