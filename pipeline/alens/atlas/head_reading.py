"""One head of an atlas: read at all rows, and shown at a few of them.

In: z of the head at the rows, its output matrix and its lens, and what all heads share. Out: the fields of an `AtlasHead`
that are read from rows. Nothing of the size of the vocabulary outlives the call.
Shapes: N rows, M of them, H heads, E d_head, D d_model, K entries of a list, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alens.atlas.atlas_head import RowGroup, ShownRow, TokenValues
from alens.atlas.head_pass import LISTED, HeadWriting, WrittenMap, pass_over
from alens.atlas.row_text import RowText
from alens.atlas.strong_rows import strong_rows
from alens.lens.maps import LensMaps
from alens.machine.top_tokens import top_tokens
from alens.reading.ranking import Ranking, best
from alens.reading.settings import LIFT, MIN_PROBABILITY
from alens.rows.direct_write import direct_write
from alens.rows.final_norm import FinalNorm

ROW_TOKENS = 5
"""Tokens in each list of a row."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What all heads are read with."""

    W_U_DV: torch.Tensor
    log_mean_V: torch.Tensor
    norm: FinalNorm | None
    """None where what heads write is not known."""
    next_ids_N: torch.Tensor
    """(N,) int64: the text's next token of each row, or NO_NEXT_TOKEN."""


@dataclass(frozen=True, kw_only=True)
class HeadOnRows:
    """One head, and the rows."""

    z_NE: torch.Tensor
    W_O_ED: torch.Tensor
    scale_N: torch.Tensor | None
    """What norms divide its write by at each row."""
    mean_E: torch.Tensor
    maps: LensMaps
    """The lenses of all heads of the layer."""
    place: int
    """Where this head stands among them."""
    vocabulary: Vocabulary
    text: RowText
    top: int

    def read(self) -> tuple[dict[str, Any], HeadWriting | None]:
        """What its page shows of the rows, and what it writes on each token, where that is known."""
        shared = self.vocabulary
        lens = self.maps.select([self.place]).folded()
        written = self._written()
        how = Ranking(rank=LIFT, top=min(LISTED, len(shared.log_mean_V)), min_probability=MIN_PROBABILITY)
        passed = pass_over(
            self.z_NE, written, lens, shared.log_mean_V, next_ids_N=shared.next_ids_N, top=self.top, how=how
        )
        strength_N = passed.write_strength_N
        shown = {
            "raised": passed.raised,
            "lowered": passed.lowered,
            "listed": passed.listed,
            "write_strength": None if strength_N is None else float(strength_N.square().mean().sqrt()),
            "lens_kl": float(passed.lens_kl_N.mean()),
            "written_rows": [] if strength_N is None else self._groups(strength_N, written, lens),
            "lens_rows": self._groups(passed.lens_kl_N, written, lens),
        }
        return shown, passed.written

    def final(self, rows_M: torch.Tensor) -> torch.Tensor:
        """(M, D) what the head writes at some rows, in the final normed residual."""
        shared = self.vocabulary
        assert shared.norm is not None and self.scale_N is not None  # else nobody asks
        return direct_write(self.z_NE[rows_M], self.mean_E, self.W_O_ED, shared.norm, self.scale_N[rows_M])

    def _written(self) -> WrittenMap | None:
        shared = self.vocabulary
        if shared.norm is None or self.scale_N is None:
            return None
        return WrittenMap.of_head(self.W_O_ED, self.mean_E, shared.norm, self.scale_N, shared.W_U_DV)

    def _groups(self, strength_N: torch.Tensor, written: WrittenMap | None, lens: LensMaps) -> list[RowGroup]:
        return [
            RowGroup(title=title, rows=self._rows(rows, strength_N, written, lens))
            for title, rows in strong_rows(strength_N)
        ]

    def _rows(
        self, rows: Sequence[int], strength_N: torch.Tensor, written: WrittenMap | None, lens: LensMaps
    ) -> list[ShownRow]:
        places, log_mean_V = torch.tensor(rows), self.vocabulary.log_mean_V
        raised: list[TokenValues] = [()] * len(rows)
        lowered = raised
        few = min(ROW_TOKENS, len(log_mean_V))
        if written is not None:
            written_MV = written.logits(self.z_NE, places)
            raised, lowered = _tokens(written_MV, few), _tokens(-written_MV, few, sign=-1.0)
        lens_MV = lens.logits(0, self.z_NE[places]).log_softmax(-1)
        how = Ranking(rank=LIFT, top=few, min_probability=MIN_PROBABILITY)
        ids_MK, log_probs_MK = best(lens_MV, log_mean_V, how)
        listed = _pairs(ids_MK, log_probs_MK - log_mean_V[ids_MK])
        shown = []
        for at, row in enumerate(rows):
            before, token, after = self.text.around(row)
            shown.append(
                ShownRow(
                    before=before,
                    token=token,
                    after=after,
                    next_token=self.text.next_token(row),
                    model_token=self.text.model_token(row),
                    strength=float(strength_N[row]),
                    raised=raised[at],
                    lowered=lowered[at],
                    listed=listed[at],
                )
            )
        return shown


def _tokens(logits_MV: torch.Tensor, top: int, sign: float = 1.0) -> list[TokenValues]:
    values_MK, ids_MK = top_tokens(logits_MV, top)
    return _pairs(ids_MK, sign * values_MK)


def _pairs(ids_MK: torch.Tensor, values_MK: torch.Tensor) -> list[TokenValues]:
    return [
        [(token, value) for token, value in zip(ids, values, strict=True) if value > -math.inf]
        for ids, values in zip(ids_MK.tolist(), values_MK.tolist(), strict=True)
    ]
