"""Prompts run once: the values of heads at the rows that are read, and the log-probabilities of one head at a time.

In: lenses with their model, prompts as token ids, and the positions to read in each. Out: `PromptValues`. The values of
all heads are kept, E numbers a head and row; log-probabilities are made for one head and a block of rows, because
those of all heads would be heads x V numbers a row.
Shapes: N prompts, R rows read in all prompts, H heads, E width of the site's values (d_head for z), D d_model,
V vocabulary.
"""

from collections.abc import Sequence

import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.job.progress import Progress, Report, silent
from alens.reading.head_says import says
from alens.reading.lensed_model import LensedModel
from alens.rows.row_scales import RowScales


def places_to_read(reader: LensedModel, num_tokens: int, position: str | int, source: str) -> list[int]:
    """The positions to read in a prompt of that length: the `last`, `all` that lenses are fitted on, or a number.

    Raises `RequestError` where the position does not exist; `source` names the prompt.
    """
    if position == "last":
        return [num_tokens - 1]
    if position == "all":
        return reader.fitted_places(num_tokens)
    place = int(position)
    if not -num_tokens <= place < num_tokens:
        raise RequestError(
            f"position {place} does not exist in {source}: it has {num_tokens} tokens, 0 to {num_tokens - 1}"
        )
    return [place % num_tokens]


class PromptValues:
    """The values of heads and model at R rows.

    Attributes: `reader`, `final_RD` (residual after the last norm), `prompt_R` (the prompt of each row, on the CPU) and
    `lengths_N` (rows of each prompt, on the CPU).
    """

    def __init__(
        self,
        reader: LensedModel,
        ids: Sequence[Sequence[int]],
        rows: Sequence[Sequence[int]],
        heads: Heads,
        report: Report = silent,
        stage: str = "run",
    ) -> None:
        """Run the model once on each prompt; `rows` are the positions to read in each, at least one."""
        self.reader, self._heads = reader, heads
        values: dict[int, list[torch.Tensor]] = {layer: [] for layer in heads.layers}
        finals, scales = [], []
        report(Progress(stage=stage, total=len(ids), unit="prompts"))
        for number, (tokens, places) in enumerate(zip(ids, rows, strict=True), start=1):
            activations = reader.run(tokens, heads.layers)
            for layer, numbers in heads.by_layer.items():
                values[layer].append(reader.values(activations, layer, numbers)[:, list(places)])
            finals.append(activations.final_BTD[0, list(places)])
            scales.append(reader.scale(activations)[list(places)])
            report(Progress(stage=stage, done=number, total=len(ids), unit="prompts"))
        self._values_HRE = {layer: torch.cat(values.pop(layer), dim=1) for layer in heads.layers}
        self.final_RD, self._scale_R = torch.cat(finals), RowScales.cat(scales)
        self.lengths_N = torch.tensor([len(places) for places in rows])
        self.prompt_R = torch.arange(len(ids)).repeat_interleave(self.lengths_N)

    def says(self, reading: str, layer: int, head: int, rows: slice) -> torch.Tensor:
        """(rows, V) log-probabilities by a reading of the head: its lens, what it writes, or its unembedding."""
        values_1RE = self._values_HRE[layer][self._heads.place(layer, head), rows][None]
        return says(self.reader, reading, layer, [head], values_1RE, self._scale_R[rows])[0]

    def writes(self, layer: int, head: int) -> torch.Tensor:
        """(R, D) what the head adds to the final normed residual. Raises `RequestError` where it is not known."""
        values_1RE = self._values_HRE[layer][self._heads.place(layer, head)][None]
        return self.reader.writes.final(layer, [head], values_1RE, self._scale_R)[0]

    def model(self, rows: slice) -> torch.Tensor:
        """(rows, V) log-probabilities by the model itself."""
        return self.reader.log_probs(self.final_RD[rows])
