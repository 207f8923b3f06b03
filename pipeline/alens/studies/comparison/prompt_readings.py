"""Readings of many prompts, one head at a time: a distribution over the vocabulary for each prompt.

In: prompts as tokens, and where in them to read. Out: `PromptReadings`. Readings are made for one head and forgotten,
because those of all heads would be heads x V numbers a prompt.
Shapes: N prompts, R rows read in all prompts, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch

from alens.heads import Heads
from alens.job.progress import Report, silent
from alens.machine.blocks import logit_blocks
from alens.reading.lensed_model import LensedModel
from alens.studies.prompt_values import PromptValues


class PromptReadings:
    """What heads and model say about N prompts, each the mean distribution over the prompt's rows."""

    def __init__(
        self,
        reader: LensedModel,
        ids: Sequence[Sequence[int]],
        rows: Sequence[Sequence[int]],
        heads: Heads,
        report: Report = silent,
    ) -> None:
        """Run the model once on each prompt; `rows` are the positions to read in each, at least one."""
        self._values = PromptValues(reader, ids, rows, heads, report)
        self._vocabulary = reader.lenses.record.model.d_vocab
        device = self._values.final_RD.device
        self._prompt_R, self._lengths_N = self._values.prompt_R.to(device), self._values.lengths_N.to(device)

    def says(self, reading: str, layer: int, head: int) -> torch.Tensor:
        """(N, V) float32: probabilities by a reading of the head: its lens, what it writes, or its unembedding."""
        return self._means(lambda rows: self._values.says(reading, layer, head, rows))

    def model(self) -> torch.Tensor:
        """(N, V) float32: the model's own probabilities."""
        return self._means(self._values.model)

    def _means(self, log_probs: Callable[[slice], torch.Tensor]) -> torch.Tensor:
        device = self._prompt_R.device
        sums_NV = torch.zeros(len(self._lengths_N), self._vocabulary, device=device)
        for rows in logit_blocks(len(self._prompt_R), self._vocabulary, device):
            sums_NV.index_add_(0, self._prompt_R[rows], log_probs(rows).exp())
        return sums_NV / self._lengths_N[:, None]
