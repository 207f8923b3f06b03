"""How probable a list of terms is on each prompt, by every head's lens, by its unembedding, and by the model; and how
far the readings are from the model's.

In: lenses with their model, terms as tokens, prompts as token ids. Out: `TermRates`. The model runs once a
prompt and leaves the heads' values at the positions that are read; then a block of rows at a time is read by all heads.
Shapes: P prompts, N rows (a prompt's positions that are read), F heads (layer by layer), E width of the site's
values, V vocabulary, W terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alens.job.progress import Progress, Report, silent
from alens.machine.blocks import row_blocks
from alens.reading.lensed import LensedModel
from alens.reading.ranking import forward_kl
from alens.reading.terms import Term

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What F readers say of the terms."""

    log_p_PF: Array
    """Log of the terms' summed probability, nats; the mean over the positions of a prompt."""
    p_PF: Array
    """The terms' summed probability; the mean over positions."""
    by_term_FW: Array
    """The probability of each term; the mean over positions and prompts."""


@dataclass(frozen=True, kw_only=True)
class TermRates:
    """Rates of one set of prompts."""

    lens: Rates
    unembedding: Rates | None
    model: Rates
    """Of the model's own next token: F is 1."""
    lens_kl_F: Array
    """KL(model, lens) in nats, the mean over the positions of a prompt, then over prompts; as the next two."""
    unembedding_kl_F: Array | None
    mean_output_kl: float | None
    """What a reader has that looks at nothing. None where the lenses do not say the mean output."""


class _RateSums:
    """Rows come in blocks; prompts go out."""

    def __init__(self, terms: Sequence[Term], prompt_of_N: torch.Tensor, num_readers: int) -> None:
        self.by_term = [list(term.ids) for term in terms]
        self.ids = sorted({token for term in terms for token in term.ids})
        self.prompt_of_N = prompt_of_N
        self.rows_P = torch.bincount(prompt_of_N).double()
        shape = (len(self.rows_P), num_readers)
        self.log_p_PF, self.p_PF = torch.zeros(shape).double(), torch.zeros(shape).double()
        self.by_term_FW = torch.zeros(num_readers, len(terms)).double()

    def add(self, reader: int, rows: slice, log_probs_NV: torch.Tensor) -> None:
        """(rows, V) log-probabilities of one reader."""
        prompts = self.prompt_of_N[rows]
        log_p_N = log_probs_NV[:, self.ids].double().logsumexp(-1).cpu()
        by_term_NW = torch.stack([log_probs_NV[:, ids].double().exp().sum(-1) for ids in self.by_term], -1)
        self.log_p_PF[:, reader].index_add_(0, prompts, log_p_N)
        self.p_PF[:, reader].index_add_(0, prompts, log_p_N.exp())
        self.by_term_FW[reader] += (by_term_NW.cpu() / self.rows_P[prompts, None]).sum(0)

    def rates(self) -> Rates:
        each_P1 = self.rows_P[:, None]
        return Rates(
            log_p_PF=(self.log_p_PF / each_P1).numpy(),
            p_PF=(self.p_PF / each_P1).numpy(),
            by_term_FW=(self.by_term_FW / len(each_P1)).numpy(),
        )


class _KlSums:
    """Sums of KL of F readers, rows in and prompts out as in `_RateSums`."""

    def __init__(self, prompt_of_N: torch.Tensor, num_readers: int) -> None:
        self.prompt_of_N, self.rows_P = prompt_of_N, torch.bincount(prompt_of_N).double()
        self.sum_F = torch.zeros(num_readers).double()

    def add(self, reader: int, rows: slice, kl_N: torch.Tensor) -> None:
        """(rows,) nats, of one reader."""
        self.sum_F[reader] += (kl_N.double().cpu() / self.rows_P[self.prompt_of_N[rows]]).sum()

    def mean(self) -> Array:
        """(F,) nats."""
        mean_F: Array = (self.sum_F / len(self.rows_P)).numpy()
        return mean_F


def term_rates(
    reader: LensedModel,
    terms: Sequence[Term],
    prompts: Sequence[Sequence[int]],
    *,
    layers: Sequence[int],
    heads: Sequence[int],
    positions: str = "last",
    unembedding: bool = True,
    report: Report = silent,
    stage: str = "prompts",
) -> TermRates:
    """Rates of `terms` on `prompts` (token ids), F being `layers` x `heads`.

    `positions` is `last`, or `all` that lenses are fitted on (not the first, where heads rest).
    """
    read = [[len(ids) - 1] if positions == "last" else reader.fitted_places(len(ids)) for ids in prompts]
    prompt_of_N = torch.tensor([number for number, places in enumerate(read) for _ in places])
    values: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    final: list[torch.Tensor] = []
    scales: list[torch.Tensor] = []
    unembedding = unembedding and reader.no_unembedding is None
    report(Progress(stage=stage, total=len(prompts), unit="prompts"))
    for done, (ids, places) in enumerate(zip(prompts, read, strict=True), start=1):
        found = reader.run(ids, layers)
        for layer in layers:
            values[layer].append(reader.values(found, layer, heads)[:, places])
        final.append(found.final_BTD[0, places])
        scales.append(reader.scale(found)[places])
        report(Progress(stage=stage, done=done, total=len(prompts), unit="prompts"))

    num_readers = len(layers) * len(heads)
    lens, plain = _RateSums(terms, prompt_of_N, num_readers), _RateSums(terms, prompt_of_N, num_readers)
    model = _RateSums(terms, prompt_of_N, 1)
    lens_kl, plain_kl, nothing_kl = (_KlSums(prompt_of_N, number) for number in (num_readers, num_readers, 1))
    values_HNE = {layer: torch.cat(values.pop(layer), dim=1) for layer in layers}
    readers = [(layer, h, head) for layer in layers for h, head in enumerate(heads)]
    final_ND, scale_N = torch.cat(final), torch.cat(scales)
    blocks = list(row_blocks(len(final_ND), final_ND.device))
    report(Progress(stage=f"heads on {stage}", total=len(blocks) * num_readers, unit="readings"))
    for number, rows in enumerate(blocks):
        model_NV = reader.log_probs(final_ND[rows])
        model.add(0, rows, model_NV)
        if (kl_N := reader.mean_output_kl(model_NV)) is not None:
            nothing_kl.add(0, rows, kl_N)
        for index, (layer, h, head) in enumerate(readers):
            value_HNE = values_HNE[layer][h, None, rows]
            said = [(reader.lens(layer, [head], value_HNE), lens, lens_kl)]
            if unembedding:
                plain_HNV = reader.unembedding(layer, [head], value_HNE, scale_N[rows])
                said.append((plain_HNV, plain, plain_kl))
            for log_probs_HNV, sums, kl in said:
                sums.add(index, rows, log_probs_HNV[0])
                kl.add(index, rows, forward_kl(model_NV, log_probs_HNV)[0])
            done = number * num_readers + index + 1
            total = len(blocks) * num_readers
            report(Progress(stage=f"heads on {stage}", done=done, total=total, unit="readings"))
    return TermRates(
        lens=lens.rates(),
        unembedding=plain.rates() if unembedding else None,
        model=model.rates(),
        lens_kl_F=lens_kl.mean(),
        unembedding_kl_F=plain_kl.mean() if unembedding else None,
        mean_output_kl=None if reader.log_mean_V is None else float(nothing_kl.mean()[0]),
    )


def mean_rates(reader: LensedModel, terms: Sequence[Term]) -> Rates | None:
    """Rates in the model's mean output, as one reader of one prompt; None where the lenses do not say it."""
    if reader.log_mean_V is None:
        return None
    sums = _RateSums(terms, torch.tensor([0]), 1)
    sums.add(0, slice(0, 1), reader.log_mean_V[None])
    return sums.rates()
