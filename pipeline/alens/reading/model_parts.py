"""The parts of a model that help to judge lenses, if it is on this machine: the bytes of its tokens, its last norm.

In: the plan of a cache, and the place of its model. Out: `ModelParts`. Judging works without a model, so what is missing
is left out, with the reason. Nothing is fetched from the hub.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.job.progress import Report, silent
from alens.model import models
from alens.model.token_bytes import token_bytes
from alens.rows.final_norm import FinalNorm
from alens.store.schema import Plan


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """Parts of the model of a cache; None for each that is missing."""

    token_bytes_V: npt.NDArray[np.int64] | None
    final_norm: FinalNorm | None
    """The gain and offset of the last norm, on the device that was asked for."""
    lacking: str | None
    """The reason, where something is missing."""


def find_model_parts(
    plan: Plan, *, model: str | None, device: torch.device, with_norm: bool, report: Report = silent
) -> ModelParts:
    """Look for the model of `plan` at `model`, or where the plan says. `with_norm` loads it, for its last norm.

    Raises `RequestError` when `model` was named and is not the model of the plan.
    """
    try:
        source = models.find_again(plan.model, "the cache", model=model, local_only=True, report=report)
        loaded = (
            models.load(source, dtype="float32", device=str(device), report=report) if with_norm else None
        )
    except RequestError as error:
        if model:
            raise
        return ModelParts(token_bytes_V=None, final_norm=None, lacking=str(error))
    final_norm = None if loaded is None else loaded.final_norm
    bytes_V, lacking = None, None
    try:
        if source.tokenizer_sha256 != plan.tokens.tokenizer_sha256:
            raise RequestError("it has another tokenizer than the cache was written with")
        tokenizer = models.load_tokenizer(source)[0] if loaded is None else loaded.tokenizer
        bytes_V = token_bytes(tokenizer, plan.model.d_vocab)
    except RequestError as error:
        if model:
            raise RequestError(f"{model} cannot give bits per byte: {error}") from None
        lacking = f"the tokenizer in {source.folder}: {error}; say with --model where the model is"
    return ModelParts(token_bytes_V=bytes_V, final_norm=final_norm, lacking=lacking)
