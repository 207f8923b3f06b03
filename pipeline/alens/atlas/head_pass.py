"""One head over all rows of an atlas: what it writes and what its lens reads, a block of rows at a time.

In: z of the head, the map of its write into logits, its lens. Out: a `HeadPass`. Logits of one block are in memory, so a
head takes as much as its maps, whatever the number of rows.
Shapes: N rows, B rows of a block, E d_head, D d_model, K entries of a list, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch

from alens.atlas.listed_tokens import ListedTokens, TokenShare
from alens.atlas.token_peaks import Peaks
from alens.lens.maps import LensMaps
from alens.machine.blocks import row_blocks
from alens.machine.top_tokens import top_tokens
from alens.reading.ranking import Ranking, best
from alens.rows.final_norm import FinalNorm
from alens.statistics.divergences import kl_between_log_probs

LISTED = 10
"""Tokens of a row that count as raised, lowered or listed."""


@dataclass(frozen=True, kw_only=True)
class WrittenMap:
    """How z of a head becomes what it writes, in logits centred over the vocabulary."""

    map_EV: torch.Tensor
    mean_E: torch.Tensor
    """E[z]."""
    scale_N: torch.Tensor
    """What norms divide the write of each row by."""

    @classmethod
    def of_head(
        cls,
        W_O_ED: torch.Tensor,
        mean_E: torch.Tensor,
        norm: FinalNorm,
        scale_N: torch.Tensor,
        W_U_DV: torch.Tensor,
    ) -> "WrittenMap":
        """The map of one head: E x V numbers, made for this head alone."""
        map_EV = norm.linear(W_O_ED) @ W_U_DV
        return cls(map_EV=map_EV - map_EV.mean(-1, keepdim=True), mean_E=mean_E, scale_N=scale_N)

    def inputs(self, z_NE: torch.Tensor, rows: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """(B, E) what the map is applied to at some rows."""
        return (z_NE[rows] - self.mean_E) / self.scale_N[rows, None]

    def logits(self, z_NE: torch.Tensor, rows: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """(B, V) logits of the direct write at some rows (`rows/direct_write.py`)."""
        return self.inputs(z_NE, rows) @ self.map_EV

    def strength(self, z_NE: torch.Tensor) -> torch.Tensor:
        """(N,) the standard deviation over the vocabulary of what the head adds to the logits of each row."""
        gram_EE = self.map_EV @ self.map_EV.T / self.map_EV.shape[1]
        inputs_NE = self.inputs(z_NE)
        return ((inputs_NE @ gram_EE) * inputs_NE).sum(-1).clamp_min(0.0).sqrt()


@dataclass(frozen=True, kw_only=True)
class HeadPass:
    """One head, over the rows of an atlas. What is written is None where it is not known."""

    raised: list[TokenShare] | None
    lowered: list[TokenShare] | None
    """Means are below zero."""
    listed: list[TokenShare]
    """By the lens; means are log lifts."""
    write_strength_N: torch.Tensor | None
    """(N,) standard deviation of the written logits over the vocabulary."""
    lens_kl_N: torch.Tensor
    """(N,) KL of the lens's reading to the mean output, in nats: how far the reading moves from what is said on average."""
    written: "HeadWriting | None"
    """What it writes on each token."""


@dataclass(frozen=True, kw_only=True)
class HeadWriting:
    """What a head writes on each token of the vocabulary, over the rows of an atlas."""

    raised: Peaks
    """The most that it raises each token."""
    lowered: Peaks
    """The most that it lowers each token; values are turned round."""
    next_N: torch.Tensor
    """(N,) what it writes on the text's next token of each row; 0 where a row has none."""


def pass_over(
    z_NE: torch.Tensor,
    written: WrittenMap | None,
    lens: LensMaps,
    log_mean_V: torch.Tensor,
    *,
    next_ids_N: torch.Tensor,
    top: int,
    how: Ranking,
) -> HeadPass:
    """Read one head at all rows; `lens` has the maps of this head alone, `how` says how its lists are made."""
    vocabulary = len(log_mean_V)
    raised, lowered, listed = (ListedTokens(vocabulary) for _ in range(3))
    highest, lowest = (Peaks.of_no_rows(vocabulary) for _ in range(2))
    kl_N = torch.zeros(len(z_NE))
    for block in row_blocks(len(z_NE), z_NE.device):
        lens_BV = lens.logits(0, z_NE[block]).log_softmax(-1)
        kl_N[block] = kl_between_log_probs(lens_BV, log_mean_V)
        ids_BK, log_probs_BK = best(lens_BV, log_mean_V, how)
        lift_BK = log_probs_BK - log_mean_V[ids_BK]
        listed.add(ids_BK, lift_BK.masked_fill(lift_BK <= 0.0, -math.inf))
        if written is None:
            continue
        written_BV = written.logits(z_NE, block)
        highest.add(written_BV, block.start)
        values_BK, ids_BK = top_tokens(written_BV, how.top)
        raised.add(ids_BK, values_BK)
        written_BV.neg_()
        lowest.add(written_BV, block.start)
        values_BK, ids_BK = top_tokens(written_BV, how.top)
        lowered.add(ids_BK, values_BK)
    return HeadPass(
        raised=None if written is None else raised.best(top),
        lowered=None if written is None else lowered.best(top, sign=-1.0),
        listed=listed.best(top),
        write_strength_N=None if written is None else written.strength(z_NE),
        lens_kl_N=kl_N,
        written=None if written is None else _writing(z_NE, written, highest, lowest, next_ids_N),
    )


def _writing(
    z_NE: torch.Tensor, written: WrittenMap, highest: Peaks, lowest: Peaks, next_ids_N: torch.Tensor
) -> HeadWriting:
    inputs_NE = written.inputs(z_NE)
    size = next(iter(row_blocks(len(z_NE), z_NE.device))).stop
    next_EN = written.map_EV[:, next_ids_N.clamp_min(0)]
    return HeadWriting(
        raised=highest.settled(inputs_NE, written.map_EV, size),
        lowered=lowest.settled(-inputs_NE, written.map_EV, size),
        next_N=torch.linalg.vecdot(inputs_NE, next_EN.T).masked_fill(next_ids_N < 0, 0.0),
    )
