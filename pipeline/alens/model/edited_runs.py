"""Many forward passes over the same sequences, each with other heads changed: what does not change is computed once.

In: a loaded model, batches of sequences, and the layers where edits will begin. Out: for a list of edits, the residual
after the last norm of each batch. The layers below the first edit give what they gave without it, so each pass begins there
(`partial_pass.py`); in the upper layers of a model that is most of the work.
Shapes: B sequences, T tokens, D d_model.
"""

from collections.abc import Iterator, Sequence

import torch

from alens.errors import RequestError
from alens.model.edits import Edit, run_edited
from alens.model.models import LoadedModel
from alens.model.partial_pass import CleanPass, begins_at, clean_pass, edited_pass

KEPT_BYTES = 2**28
"""Memory for the residual stream before the layers where passes begin. Where all of them would take more, some are kept, and
a pass begins at the next one below its first edit."""

PROBED_TOKENS = 32
"""Tokens of the passes that show whether the model can begin at a layer."""


class EditedRuns:
    """The batches under edits. Attribute: `clean`, their passes without one."""

    def __init__(
        self,
        model: LoadedModel,
        batches: Sequence[torch.Tensor],
        layers: Sequence[int],
        *,
        quick: bool | None = None,
    ) -> None:
        """Run the model once on each batch, (B, T) tokens. `layers` are the first layers of the edits that will follow; `quick`
        says that passes may begin there, which is otherwise tried on some tokens.

        Raises `RequestError` for what TransformerLens cannot run.
        """
        self._model = model
        kept = _kept(
            sorted(set(layers) - {0}), sum(batch.numel() for batch in batches) * model.W_U_DV.shape[0]
        )
        self.quick = _can_begin(model, batches[0], kept) if quick is None else quick
        self._kept = kept if self.quick else []
        self.clean: list[CleanPass] = [clean_pass(model, tokens_BT, self._kept) for tokens_BT in batches]

    def under(self, edits: Sequence[Edit]) -> Iterator[torch.Tensor]:
        """(B, T, D) of each batch with `edits` made; one pass for each, from the first edit on."""
        first = min(edit.layer for edit in edits)
        begin = max((layer for layer in self._kept if layer <= first), default=None)
        for clean in self.clean:
            if begin is None:
                yield run_edited(self._model, clean.tokens_BT, edits)
            else:
                yield edited_pass(self._model, clean, begin, edits)


def _kept(layers: Sequence[int], numbers_a_layer: int) -> list[int]:
    """The layers whose input is kept: all, or as many of them as memory should hold, evenly."""
    most = max(1, KEPT_BYTES // (4 * numbers_a_layer))
    step = -(-len(layers) // most)
    return list(layers[::step]) if layers else []


def _can_begin(model: LoadedModel, tokens_BT: torch.Tensor, layers: Sequence[int]) -> bool:
    """Whether passes that begin at these layers give what whole ones give."""
    if not layers:
        return True
    try:
        clean = clean_pass(model, tokens_BT[:1, :PROBED_TOKENS], layers)
    except RequestError:  # the model runs, but does not give the input of its layers
        return False
    return all(begins_at(model, clean, layer) for layer in layers)
