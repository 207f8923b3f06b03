"""The contrast fitted again and again, each time judged on prompts that it was not fitted on.

In: readings of prompts, (N, V), once. Out: scores of every prompt by every fit; nothing is read from the model again.
Fits on prompts drawn with replacement say how far the area varies; but they see 63 % of the prompts, so they are
worse than a fit on all. The area itself comes from folds, drawn anew ten times, which see 80 %.
Shapes: B fits on draws, R fits on folds, N prompts, C clean, S suspect, G groups, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch

from alens.machine.blocks import slices, tile_size
from alens.statistics import bootstrap
from alens.statistics.area import Comparisons, Labels, comparisons
from alens.statistics.bootstrap import Array
from alens.studies.comparison.prompt_scores import FOLDS, folds

REFITS = 400
REPEATS = 10
"""How often prompts are divided into folds anew."""


class Refits:
    """Fits, on the same prompts for all readings.

    Attribute: `undrawn_BN`, the prompts that each fit on draws did not draw.
    """

    def __init__(
        self,
        groups: Sequence[str],
        suspect_N: Labels,
        *,
        paired: bool,
        seed: int,
        number: int = REFITS,
        num_folds: int = FOLDS,
    ) -> None:
        """Clean and suspect prompts are drawn apart, pairs whole. A fit judges a prompt when it drew no prompt of its
        group (one text, or a pair)."""
        self._suspect_N, self._paired = suspect_N, paired
        num_suspect = int(suspect_N.sum())
        clean_BC = bootstrap.counts(0, number, len(suspect_N) - num_suspect, 2 * seed)
        suspect_BS = clean_BC if paired else bootstrap.counts(0, number, num_suspect, 2 * seed + 1)
        drawn_BN = np.zeros((number, len(suspect_N)))
        drawn_BN[:, ~suspect_N], drawn_BN[:, suspect_N] = clean_BC, suspect_BS
        self.undrawn_BN: Labels = drawn_BN == 0
        _, group_N = np.unique(np.array(groups), return_inverse=True)
        drawn_BG = drawn_BN @ np.eye(group_N.max() + 1)[group_N]
        self._judged_BN: Labels = drawn_BG[:, group_N] == 0
        repeated = [
            split for repeat in range(REPEATS) for split in folds(groups, suspect_N, num_folds, seed, repeat)
        ]
        fit_RN = np.ones((len(repeated), len(suspect_N)))
        for fit_N, split in zip(fit_RN, repeated, strict=True):
            fit_N[split.judge] = 0.0
        self._held_out_RN: Labels = fit_RN == 0
        weights = np.concatenate([drawn_BN, fit_RN])
        self._weights = [(flags, weights[:, flags]) for flags in (~suspect_N, suspect_N)]

    def scores(self, readings_NV: torch.Tensor, prior: float = 0.0) -> Array:
        """(B + R, N) the contrast in nats, up to a constant for each fit. `prior` is added to sums of readings."""
        device = readings_NV.device
        weights = [(flags, torch.from_numpy(one_BN).float().to(device)) for flags, one_BN in self._weights]
        contrast_BN = torch.zeros(len(weights[0][1]), len(readings_NV), dtype=torch.float64, device=device)
        most_rows, most_tokens = tile_size(device)
        for tokens in slices(readings_NV.shape[1], most_tokens):
            part_NV = readings_NV[:, tokens].float()
            for rows in slices(len(contrast_BN), most_rows):
                clean_BV, suspect_BV = (
                    _log(one_BN[rows], part_NV[flags], prior) for flags, one_BN in weights
                )
                contrast_BN[rows] += suspect_BV.sub_(clean_BV) @ part_NV.T
        return contrast_BN.cpu().numpy()

    def held_out(self, scores_BN: Array) -> Comparisons:
        """How the fits on folds separate the prompts they did not see."""
        scores_RN = scores_BN[len(self.undrawn_BN) :]
        return comparisons(scores_RN, self._held_out_RN, self._suspect_N, paired=self._paired)

    def interval(self, scores_BN: Array) -> tuple[float, float]:
        """The 95 % interval of that area, from the fits on draws."""
        drawn_BN = scores_BN[: len(self.undrawn_BN)]
        drawn = comparisons(drawn_BN, self._judged_BN, self._suspect_N, paired=self._paired)
        return drawn.interval(self.undrawn_BN, around=self.held_out(scores_BN).area)


def _log(weights_BN: torch.Tensor, readings_NV: torch.Tensor, prior: float) -> torch.Tensor:
    """(B, V) the log of weighted mean readings."""
    means_BV = (weights_BN @ readings_NV).add_(prior).div_(weights_BN.sum(1, keepdim=True))
    return means_BV.clamp_min_(torch.finfo(torch.float32).tiny).log_()
