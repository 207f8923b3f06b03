"""The contrast fitted again and again on prompts drawn with replacement, and judged on those that were not drawn.

In: readings of prompts, (N, V), once. Out: scores of every prompt by every fit; nothing is read from the model again.
A fit sees as many prompts as there are, but about 63 % of them distinct: it is a little worse than one on all.
Shapes: B fits, N prompts, C clean, S suspect, G groups, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from alens.blocks import slices
from alens.evaluation import bootstrap
from alens.studies.comparison.area import Array, Comparisons, Labels, comparisons
from alens.studies.comparison.divergence import BLOCK_BYTES

REFITS = 400


class Refits:
    """Draws of prompts, the same for all readings. Attributes: `undrawn_BN`, prompts a fit did not draw."""

    def __init__(
        self, groups: Sequence[str], suspect_N: Labels, *, paired: bool, seed: int, number: int = REFITS
    ) -> None:
        """Clean and suspect prompts are drawn for themselves, pairs whole. A prompt is judged where no prompt of
        its group (one text, or a pair) was drawn."""
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
        self._drawn = [(~suspect_N, clean_BC), (suspect_N, suspect_BS)]

    def scores(self, readings_NV: torch.Tensor, prior: float = 0.0) -> Array:
        """(B, N) the contrast, in nats, but for a constant of each fit. `prior` is added to the sum of readings."""
        readings_NV = readings_NV.float()
        device, found = readings_NV.device, []
        for rows in slices(len(self.undrawn_BN), max(1, BLOCK_BYTES // (8 * readings_NV.shape[1]))):
            clean_BV, suspect_BV = (
                _log(torch.from_numpy(drawn[rows]).float().to(device) @ readings_NV[flags], prior, drawn)
                for flags, drawn in self._drawn
            )
            found.append(((suspect_BV - clean_BV) @ readings_NV.T).double().cpu().numpy())
        return np.concatenate(found)

    def comparisons(self, scores_BN: npt.NDArray[np.float64]) -> Comparisons:
        """Of the prompts that each fit may judge."""
        return comparisons(scores_BN, self._judged_BN, self._suspect_N, paired=self._paired)


def _log(sums_BV: torch.Tensor, prior: float, drawn: Array) -> torch.Tensor:
    """Of the mean readings."""
    means_BV = sums_BV.add_(prior).div_(drawn.shape[1])
    return means_BV.clamp_min_(torch.finfo(torch.float32).tiny).log_()
