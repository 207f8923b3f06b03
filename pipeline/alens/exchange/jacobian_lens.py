"""Files of Jacobian lenses: those of TransformerLens' `JacobianLens` and of the reference package, of layers or of heads.

In: a `.pt` file with `J`, by layer a matrix that takes a vector of the model to the residual stream before the last norm
("Verbalizable Representations Form a Global Workspace in Language Models", Gurnee et al., 2026). Out: `PublishedLenses` with
translated maps: logits = unembed(norm(J h)), norm and unembedding the model's own. That of a layer is (D, D) and reads the
stream after it; of the last layer there is none, or the identity. A file of heads has the same keys: its matrices are
(D, H E) and read z of all heads of a layer side by side, the last layer too. A checkpoint of a fit has `jacobian_sum` and
`n_done` in the place of `J`.
Shapes: H heads, E d_head, D d_model, V vocabulary.
"""

from pathlib import Path
from typing import Any

import torch

from alens.errors import AlensError, RequestError
from alens.exchange.published import PublishedLenses
from alens.exchange.request import ImportRequest
from alens.exchange.weights_only import instead, load_weights
from alens.heads import Heads
from alens.lens.maps import TranslatedMaps
from alens.model.models import LoadedModel
from alens.store.model_record import ModelRecord
from alens.store.schema import ATTN_Z, RESIDUAL_STREAM

MEANS, SUMS = "J", "jacobian_sum"
BLOCK_HOOKS = "hook_out", "hook_resid_post"
"""How `hook_convention` of a file's metadata ends where it reads the stream after a layer."""


def recognises(source: Path) -> bool:
    """Whether `source` is a file with Jacobians."""
    try:
        body = load_weights(source) if source.is_file() else {}
    except AlensError:
        return False
    return isinstance(body.get(MEANS), dict) or isinstance(body.get(SUMS), dict)


def read(request: ImportRequest, model: LoadedModel) -> PublishedLenses:
    """The lenses of `request.source`. Raises `RequestError` for lenses of another model."""
    source, record, norm = request.source, model.source.record, model.final_norm
    if norm is None:
        raise RequestError(
            f"the last norm of {record.id} is neither a layer norm nor an RMS norm: alens reads no Jacobian lens of it"
        )
    body = load_weights(source)
    matrices, divisor = (body[MEANS], 1) if MEANS in body else (body[SUMS], body.get("n_done"))
    if type(divisor) is not int or divisor < 1:
        raise RequestError(f"{source} is a checkpoint of {divisor} prompts: give one of a fit that has begun")
    layers = sorted(layer for layer in matrices if type(layer) is int)
    if not layers or len(layers) < len(matrices) or not 0 <= layers[0] <= layers[-1] < record.n_layers:
        raise RequestError(
            f"{source} has Jacobians of layers {str(list(matrices))[:60]}, and {record.id} has layers 0 to {record.n_layers - 1}: "
            "give the model that they were made from"
        )
    of_heads = _of_heads(body, matrices, divisor, record)
    if not of_heads and layers[-1] == record.n_layers - 1:
        layers.pop()  # the identity
    if request.layer is not None and request.layer not in layers:
        raise RequestError(f"{source} has no Jacobian of layer {request.layer}: it has layers {layers}")
    chosen = layers if request.layer is None else [request.layer]
    width = record.n_heads * record.d_head if of_heads else record.d_model
    for layer in chosen:
        if (there := instead(matrices[layer], (record.d_model, width))) is not None:
            raise RequestError(
                f"{source} has {there} for layer {layer}, and {record.id} needs {(record.d_model, width)}: give the model that "
                "the lens was made from"
            )
    gain_D, offset_D = norm.gain_D.cpu(), norm.offset_D.cpu()
    number = record.n_heads if of_heads else 1

    def maps(layer: int) -> TranslatedMaps:
        matrix_DX = matrices[layer].float() / divisor
        return TranslatedMaps(
            translator_HED=matrix_DX.T.reshape(number, -1, record.d_model),
            shift_HD=torch.zeros(number, record.d_model),
            gain_HD=gain_D.repeat(number, 1),
            offset_HD=offset_D.repeat(number, 1),
            W_U_DV=model.W_U_DV.cpu().float(),
            b_U_V=model.b_U_V.cpu().float(),
            norm=norm.record,
        )

    prompts = body.get("n_prompts", divisor)
    return PublishedLenses(
        program="jacobian-lens",
        site=ATTN_Z if of_heads else RESIDUAL_STREAM,
        form=TranslatedMaps.form,
        heads=Heads.grid(tuple(chosen), tuple(range(number))),
        maps=maps,
        notes={"prompts": prompts if type(prompts) is int else None},
    )


def _of_heads(body: dict[str, Any], matrices: dict[int, Any], divisor: int, record: ModelRecord) -> bool:
    """Whether the Jacobians are by z of heads. Nothing in a file says so: that of the last layer does, where there is one."""
    metadata = body.get("metadata")
    hook = metadata.get("hook_convention") if isinstance(metadata, dict) else None
    if isinstance(hook, str) and hook.endswith(BLOCK_HOOKS):
        return False
    side_by_side = record.n_heads * record.d_head
    shapes = {tuple(matrix.shape) for matrix in matrices.values() if isinstance(matrix, torch.Tensor)}
    if side_by_side != record.d_model:
        return (record.d_model, side_by_side) in shapes
    last = matrices.get(record.n_layers - 1)
    if not isinstance(last, torch.Tensor) or last.shape != (record.d_model, record.d_model):
        return False
    identity_DD = torch.eye(record.d_model)
    return float((last.float() / divisor - identity_DD).norm()) > 0.01 * float(identity_DD.norm())
