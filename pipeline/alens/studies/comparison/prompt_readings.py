"""Many prompts, each run once: what their heads hold, and from it the readings of one head at a time.

In: prompts as tokens, and where in them to read. Out: `PromptReadings`: for any head one distribution over the
vocabulary for each prompt, (N, V). Values (z) of all heads are kept, `d_head` numbers a head and row; readings
are made head by head and forgotten, because those of all heads would take heads x V numbers a prompt.
Shapes: N prompts, R rows read in all prompts, H heads, E width of the site's values, D d_model, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch

from alens.errors import RequestError
from alens.job.progress import Progress, Report, silent
from alens.machine.blocks import logit_blocks
from alens.reading.lensed import LensedModel
from alens.studies.comparison.settings import ALL, LAST


def rows_of(reader: LensedModel, num_tokens: int, position: str | int, source: str) -> list[int]:
    """The positions to read in a prompt of that length; `all` are those that lenses are fitted on.

    Raises `RequestError` where there is none such.
    """
    if position == LAST:
        return [num_tokens - 1]
    if position == ALL:
        return reader.fitted_places(num_tokens)
    place = int(position)
    if not -num_tokens <= place < num_tokens:
        raise RequestError(
            f"position {place} does not exist in {source}: it has {num_tokens} tokens, 0 to {num_tokens - 1}"
        )
    return [place % num_tokens]


class PromptReadings:
    """What heads and model say about N prompts. Attributes: `reader`, `num_prompts`, `ids`: tokens by prompt."""

    def __init__(
        self,
        reader: LensedModel,
        ids: Sequence[Sequence[int]],
        rows: Sequence[Sequence[int]],
        layers: Sequence[int],
        heads: Sequence[int],
        report: Report = silent,
    ) -> None:
        """Run the model once a prompt; `rows` are the positions to read of each, at least one.

        A prompt's reading is the mean distribution over its rows. Memory: layers x heads x E x 4 bytes a row.
        """
        self.reader, self.ids, self.num_prompts = reader, [list(one) for one in ids], len(ids)
        self._heads = list(heads)
        values: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
        finals, scales = [], []
        report(Progress(stage="run", total=len(ids), unit="prompts"))
        for number, (tokens, places) in enumerate(zip(ids, rows, strict=True), start=1):
            found = reader.run(tokens, layers)
            for layer in layers:
                values[layer].append(reader.values(found, layer, heads)[:, list(places)])
            finals.append(found.final_BTD[0, list(places)])
            scales.append(reader.scale(found)[list(places)])
            report(Progress(stage="run", done=number, total=len(ids), unit="prompts"))
        self._values_HRE = {layer: torch.cat(found, dim=1) for layer, found in values.items()}
        self._final_RD, self._scale_R = torch.cat(finals), torch.cat(scales)
        lengths = torch.tensor([len(places) for places in rows])
        self._prompt_R = torch.arange(len(ids)).repeat_interleave(lengths).to(self._final_RD.device)
        self._lengths_N = lengths.to(self._final_RD.device)

    def lens(self, layer: int, head: int) -> torch.Tensor:
        """(N, V) float32: probabilities by the head's lens."""
        return self._read(lambda rows: self.reader.lens(layer, [head], self._values(layer, head, rows))[0])

    def unembedding(self, layer: int, head: int) -> torch.Tensor:
        """(N, V) float32: probabilities by the unembedding of what the head writes."""

        def log_probs(rows: slice) -> torch.Tensor:
            values_HRE = self._values(layer, head, rows)
            return self.reader.unembedding(layer, [head], values_HRE, self._scale_R[rows])[0]

        return self._read(log_probs)

    def model(self) -> torch.Tensor:
        """(N, V) float32: the model's own probabilities."""
        return self._read(lambda rows: self.reader.log_probs(self._final_RD[None, rows])[0])

    def _values(self, layer: int, head: int, rows: slice) -> torch.Tensor:
        return self._values_HRE[layer][self._heads.index(head), rows][None]

    def _read(self, log_probs: Callable[[slice], torch.Tensor]) -> torch.Tensor:
        vocabulary, device = self.reader.lenses.record.model.d_vocab, self._final_RD.device
        sums_NV = torch.zeros(self.num_prompts, vocabulary, device=device)
        for rows in logit_blocks(len(self._prompt_R), vocabulary, device):
            sums_NV.index_add_(0, self._prompt_R[rows], log_probs(rows).exp())
        return sums_NV / self._lengths_N[:, None]
