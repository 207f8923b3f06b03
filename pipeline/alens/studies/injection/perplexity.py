"""What a change of the model costs on a text: nats a token, with and without it.

In: a text as `alens cache` reads it, and edits of the model. Out: `Windows` of its tokens, and for each window
the summed negative log-probability of its tokens. A window has `n_ctx` tokens, the last one perhaps fewer;
each token but a window's first is predicted from what stands before it in the window. Where the lenses were fitted on
sequences that begin with BOS, so does each window. The loss is exact: every token
of the vocabulary counts, with logits made block by block.
Shapes: B windows, T tokens, D d_model, V vocabulary, W windows of the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad

from alens.errors import RequestError
from alens.machine.blocks import logit_blocks
from alens.model.edited_runs import EditedRuns
from alens.model.edits import Edit
from alens.model.models import LoadedModel
from alens.statistics.bootstrap import mean_intervals
from alens.store.arrays import token_dtype
from alens.text.corpus import Corpus
from alens.text.text_tokens import TextTokens

TOKENS_A_PASS = 2048
"""Tokens of one forward pass: two windows of GPT-2. More would not be quicker on a CPU, and attention is T x T."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The tokens of a text, cut into windows."""

    batches: tuple[torch.Tensor, ...]
    """(B, T) int64 each; windows of one batch have one length."""

    @property
    def predicted(self) -> int:
        """How many tokens are predicted."""
        return sum(len(batch) * (batch.shape[1] - 1) for batch in self.batches)

    @property
    def count(self) -> int:
        """How many windows there are."""
        return sum(len(batch) for batch in self.batches)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss of a run of the model over `Windows`, summed by window."""

    nats_W: npt.NDArray[np.float64]
    """Summed negative log-probability of each window's tokens."""
    tokens_W: npt.NDArray[np.float64]
    """How many tokens each window predicts."""

    @property
    def mean(self) -> float:
        """Nats per token; its exponential is the perplexity."""
        return float(self.nats_W.sum() / self.tokens_W.sum())

    def more_than(self, clean: "Loss", seed: int) -> tuple[float, tuple[float, float] | None]:
        """The difference to `clean` in nats per token, and its 95 % interval over windows; None for a single window."""
        added_W = self.nats_W - clean.nats_W
        (interval,) = mean_intervals(added_W[:, None], clean.tokens_W, seed=seed)
        return float(added_W.sum() / clean.tokens_W.sum()), interval


def read_windows(corpus: Corpus, model: LoadedModel, max_tokens: int, *, bos: int | None = None) -> Windows:
    """The first `max_tokens` tokens of a text, in windows of `n_ctx`, each after the token `bos` if one is given.

    Raises `RequestError` when it cannot be read, or holds fewer than two tokens.
    """
    record = model.source.record
    parts, num_tokens = [], 0
    text_tokens = TextTokens(
        corpus=corpus,
        tokenizer=model.tokenizer,
        end_of_text=model.end_of_text,
        dtype=token_dtype(record.d_vocab),
        num_tokens=record.d_vocab,
    )
    for _, part in text_tokens.pieces():
        parts.append(part)
        num_tokens += len(part)
        if num_tokens >= max_tokens:
            break
    if min(num_tokens, max_tokens) < 2:
        raise RequestError(f"{corpus.record.id} holds fewer than two tokens: nothing in it can be predicted")
    tokens = torch.from_numpy(np.concatenate(parts)[:max_tokens].astype(np.int64))
    return Windows(batches=cut(tokens, record.n_ctx, bos))


def cut(tokens: torch.Tensor, width: int, bos: int | None = None) -> tuple[torch.Tensor, ...]:
    """(N,) tokens -> batches (B, T) of windows of `width`, the first token of each `bos` if one is given.

    A last window that predicts nothing is left out.
    """
    before = 0 if bos is None else 1
    text_len = width - before
    whole = len(tokens) // text_len
    batches: list[torch.Tensor] = []
    if whole:
        batches += tokens[: whole * text_len].view(whole, text_len).split(max(1, TOKENS_A_PASS // width))
    if len(tokens) - whole * text_len + before > 1:
        batches.append(tokens[whole * text_len :][None])
    return tuple(batches if bos is None else (pad(text_BT, (1, 0), value=bos) for text_BT in batches))


def loss_of(model: LoadedModel, windows: Windows, runs: EditedRuns, edits: Sequence[Edit] = ()) -> Loss:
    """The loss on each window with `edits` made, one pass over the text; without them it is that of the pass of `runs`, which
    has the windows' batches."""
    finals = runs.under(edits) if edits else (clean.final_BTD for clean in runs.clean)
    nats: list[float] = []
    for tokens_BT, final_BTD in zip(windows.batches, finals, strict=True):
        nats += _nats(model, final_BTD[:, :-1], tokens_BT[:, 1:].to(model.device)).tolist()
    counts = [float(b.shape[1] - 1) for b in windows.batches for _ in b]
    return Loss(nats_W=np.array(nats), tokens_W=np.array(counts))


def _nats(model: LoadedModel, final_BTD: torch.Tensor, next_BT: torch.Tensor) -> torch.Tensor:
    """(B,) float64: summed negative log-probability of the next tokens."""
    rows_ND, next_N = final_BTD.flatten(0, 1), next_BT.flatten()
    nats_N = torch.empty(len(rows_ND), dtype=torch.float64, device=rows_ND.device)
    with torch.inference_mode():
        for rows in logit_blocks(len(rows_ND), model.W_U_DV.shape[1], model.device):
            logits_NV = model.logits(rows_ND[rows])
            right_N = logits_NV.gather(1, next_N[rows, None])[:, 0]
            nats_N[rows] = (logits_NV.logsumexp(-1) - right_N).double()
    return nats_N.view(next_BT.shape).sum(1)
