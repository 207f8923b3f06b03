"""What the loaded model really does, by numbers, on the first sequences of the cache's own tokens.

In: the loaded model and some token rows. Out: nothing, or a `RequestError` for a model that alens would misread. No
list of model names decides: a configuration can say anything. The first job examines before it writes the plan, and
each later job before its first shard.
Shapes: B sequences, T tokens, D d_model, V vocabulary.
"""

from typing import Any

import numpy.typing as npt
import torch

from alens.cache import activations
from alens.cache.model import Subject
from alens.errors import RequestError

SEQUENCES = 2
"""Of the first batch: enough for these questions, and a large model has seen them in a moment."""

MOVED = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far a final residual may move when a later token changes, as a share of its length: rounding."""


def examine(subject: Subject, tokens_BT: npt.NDArray[Any]) -> None:
    """Raises `RequestError` where the model is not causal, or its logits are not W_U of the final residual."""
    tokens = torch.from_numpy(tokens_BT[:SEQUENCES].astype("int64"))
    with torch.inference_mode():
        found = _run(subject, tokens)
        activations.check_unembedding(subject, found)
        _check_causal(subject, tokens, found.final_BTD)


def _run(subject: Subject, tokens_BT: torch.Tensor) -> activations.Activations:
    try:
        return activations.run(subject, tokens_BT, ())
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what the bridge says of a model it lacks a part of
        raise RequestError(
            f"{subject.source.record.architecture} does not run in TransformerLens: {str(error).splitlines()[0]}"
        ) from error


def _check_causal(subject: Subject, tokens_BT: torch.Tensor, final_BTD: torch.Tensor) -> None:
    """Change the last token: whatever moves at an earlier position has looked ahead."""
    changed_BT = tokens_BT.clone()
    changed_BT[:, -1] = (changed_BT[:, -1] + 1) % subject.source.record.d_vocab
    before_BTD = final_BTD[:, :-1].float()
    moved_BT = (_run(subject, changed_BT).final_BTD[:, :-1].float() - before_BTD).norm(dim=-1)
    share_BT = moved_BT / before_BTD.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    worst = float(share_BT.max())
    if not worst <= MOVED[final_BTD.dtype]:
        position = int(share_BT.max(dim=0).values.argmax())
        raise RequestError(
            f"{subject.source.record.architecture} is not causal: another last token moves the final residual at "
            f"position {position} by {worst:.2g} of its length; lenses are of models that predict the next token from "
            "the tokens before it: give a causal language model"
        )
