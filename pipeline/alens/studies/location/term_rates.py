"""How probable terms or answers are on each prompt, by the readings of every head, and by the model; and how far these
readings are from the model's.

In: lenses with their model, what is scored (`scored.py`), prompts as token ids. Out: `TermRates`. The model runs once on each
prompt; then every head reads a block of rows at a time.
Shapes: P prompts, N rows (the positions that are read, of all prompts), F heads (layer by layer), V vocabulary, W
terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from alens.heads import Heads
from alens.job.progress import Progress, Report, silent
from alens.machine.blocks import row_blocks
from alens.reading.head_says import EFFECT, LENS, UNEMBEDDING, WRITTEN
from alens.reading.lensed_model import LensedModel
from alens.statistics.bootstrap import Array
from alens.statistics.divergences import kl_of_log_probs
from alens.studies.location.scored import Scored
from alens.studies.location.settings import LocateSettings
from alens.studies.prompt_values import PromptValues, places_to_read

PURSUIT = "pursuit"
"""The reading of heads that takes no distribution."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How probable the terms are by F readers, or the prompts' own targets."""

    log_p_PF: Array
    """Log of the terms' summed probability, or the score of the answer, nats; the mean over the positions of a prompt."""
    p_PF: Array
    """The terms' summed probability, or the target's; the mean over positions."""
    by_term_FW: Array
    """The probability of each term, or of target and foil; the mean over positions and prompts."""


@dataclass(frozen=True, kw_only=True)
class TermRates:
    """Rates on one set of prompts, by all readers."""

    lens: Rates
    unembedding: Rates | None
    written: Rates | None
    """None unless heads are ranked by it; so is its KL."""
    effect: Rates | None
    """The same."""
    model: Rates
    """By the model's own next token: F is 1."""
    model_right_P: Array
    """The share of a prompt's positions where the model is right (`Scored.right`)."""
    lens_kl_F: Array
    """KL(model, lens) in nats, the mean over the positions of a prompt, then over prompts; so are the next four."""
    unembedding_kl_F: Array | None
    written_kl_F: Array | None
    effect_kl_F: Array | None
    mean_output_kl: float | None
    """KL(model, mean output): the KL of a reading that ignores its input. None where the lenses lack the mean
    output."""
    pursuit: Rates | None = None
    """Shares in the place of probabilities (`pursuit.py`); None unless heads are ranked by it."""
    outputs: list[torch.Tensor] = field(default_factory=list)
    """(R, D) what each head writes, where heads are ranked by pursuit; else nothing."""
    prompt_R: torch.Tensor
    """The prompt of each row."""


class _ReaderSums:
    """Adds up the terms' rates and the KL to the model over rows, for F readers; gives their means over prompts."""

    def __init__(self, scored: Scored, prompt_N: torch.Tensor, num_readers: int) -> None:
        self._scored = scored
        self._prompt_N, self._rows_P = prompt_N, torch.bincount(prompt_N).double()
        shape = (len(self._rows_P), num_readers)
        self._log_p_PF, self._p_PF = torch.zeros(shape).double(), torch.zeros(shape).double()
        self._by_term_FW = torch.zeros(num_readers, len(scored.names)).double()
        self._kl_F = torch.zeros(num_readers).double()
        self._right_P = torch.zeros(shape[0]).double()

    def add(self, reader: int, rows: slice, log_probs_NV: torch.Tensor) -> None:
        """Add (rows, V) log-probabilities of one reader."""
        prompts = self._prompt_N[rows]
        score_N, p_N, by_term_NW = self._scored.scores(prompts, log_probs_NV)
        self._log_p_PF[:, reader].index_add_(0, prompts, score_N)
        self._p_PF[:, reader].index_add_(0, prompts, p_N)
        self._by_term_FW[reader] += (by_term_NW / self._rows_P[prompts, None]).sum(0)

    def add_kl(self, reader: int, rows: slice, kl_N: torch.Tensor) -> None:
        """Add (rows,) KL of one reader to the model, nats."""
        self._kl_F[reader] += (kl_N.double().cpu() / self._rows_P[self._prompt_N[rows]]).sum()

    def add_right(self, rows: slice, log_probs_NV: torch.Tensor) -> None:
        """Count the rows where (rows, V) log-probabilities are right."""
        prompts = self._prompt_N[rows]
        self._right_P.index_add_(0, prompts, self._scored.right(prompts, log_probs_NV).double())

    def right(self) -> Array:
        """(P,) the share of rows that are right."""
        right_P: Array = (self._right_P / self._rows_P).numpy()
        return right_P

    def rates(self) -> Rates:
        """The means of what was added."""
        each_P1 = self._rows_P[:, None]
        return Rates(
            log_p_PF=(self._log_p_PF / each_P1).numpy(),
            p_PF=(self._p_PF / each_P1).numpy(),
            by_term_FW=(self._by_term_FW / len(each_P1)).numpy(),
        )

    def kl(self) -> Array:
        """(F,) the mean KL, nats."""
        mean_F: Array = (self._kl_F / len(self._rows_P)).numpy()
        return mean_F


def term_rates(
    reader: LensedModel,
    scored: Scored,
    prompts: Sequence[Sequence[int]],
    heads: Heads,
    settings: LocateSettings,
    *,
    report: Report = silent,
    stage: str = "prompts",
) -> TermRates:
    """Rates of what is scored on `prompts` (token ids), for the F `heads`.

    The last position of a prompt is read, or all that lenses are fitted on (not the first, where heads rest).
    """
    places = [places_to_read(reader, len(ids), settings.position, "a prompt") for ids in prompts]
    values = PromptValues(reader, prompts, places, heads, report, stage)
    readers = list(heads)
    names = [LENS, *((settings.by,) if settings.by in (WRITTEN, EFFECT) else ())]
    if settings.compare == UNEMBEDDING and reader.no_unembedding is None:
        names.append(UNEMBEDDING)
    by_name = {name: _ReaderSums(scored, values.prompt_R, len(readers)) for name in names}
    model, nothing = (_ReaderSums(scored, values.prompt_R, 1) for _ in range(2))
    blocks = list(row_blocks(len(values.final_RD), values.final_RD.device))
    done, total = 0, len(blocks) * len(readers)
    report(Progress(stage=f"heads on {stage}", total=total, unit="readings"))
    for rows in blocks:
        model_NV = values.model(rows)
        model.add(0, rows, model_NV)
        model.add_right(rows, model_NV)
        if (kl_N := reader.mean_output_kl(model_NV)) is not None:
            nothing.add_kl(0, rows, kl_N)
        for number, (layer, head) in enumerate(readers):
            for name, sums in by_name.items():
                log_probs_NV = values.says(name, layer, head, rows)
                sums.add(number, rows, log_probs_NV)
                sums.add_kl(number, rows, kl_of_log_probs(model_NV, log_probs_NV[None])[0])
            done += 1
            report(Progress(stage=f"heads on {stage}", done=done, total=total, unit="readings"))
    rates = {name: sums.rates() for name, sums in by_name.items()}
    kl_F = {name: sums.kl() for name, sums in by_name.items()}
    return TermRates(
        lens=rates[LENS],
        unembedding=rates.get(UNEMBEDDING),
        written=rates.get(WRITTEN),
        effect=rates.get(EFFECT),
        model=model.rates(),
        model_right_P=model.right(),
        lens_kl_F=kl_F[LENS],
        unembedding_kl_F=kl_F.get(UNEMBEDDING),
        written_kl_F=kl_F.get(WRITTEN),
        effect_kl_F=kl_F.get(EFFECT),
        outputs=[values.writes(*head) for head in readers] if settings.by == PURSUIT else [],
        prompt_R=values.prompt_R,
        mean_output_kl=None if reader.log_mean_V is None else float(nothing.kl()[0]),
    )


def mean_rates(reader: LensedModel, scored: Scored) -> Rates | None:
    """Rates in the model's mean output, as one reader of one prompt, or of each prompt with an answer of its own; None where
    the lenses lack it."""
    if reader.log_mean_V is None:
        return None
    sums = _ReaderSums(scored, torch.arange(scored.num_prompts), 1)
    for prompt in range(scored.num_prompts):
        sums.add(0, slice(prompt, prompt + 1), reader.log_mean_V[None])
    return sums.rates()
