"""transformers' model -> TransformerLens' bridge, and the matrices that its heads write with.

In: a loaded model and its record. Out: the bridge; W_O and b_O of every layer, at the layer's own number; W_U and b_U.
The bridge's own stack leaves out layers without attention, so that the first matrix of a hybrid (Qwen3-Next, LFM2)
may be that of layer 3. Nothing here depends on a model's name.
Shapes: L layers, H heads, E d_head, D d_model, V vocabulary.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.model import configuration
from alens.model.libraries import importing, refusing
from alens.store.model_record import ModelRecord

NO_ADAPTER = "Could not determine supported architecture"
"""The beginning of TransformerLens' message for a model that it does not know; two hundred names follow."""


def boot(
    model: Any, folder: Path, record: ModelRecord, dtype: torch.dtype, device: torch.device, tokenizer: Any
) -> Any:
    """The bridge around `model`. Raises `RequestError` for a model that TransformerLens cannot take.

    TransformerLens loads a tokenizer of its own, which alens does not use. Where `folder` is a GGUF file, it gets the
    files of `tokenizer`.
    """
    with importing():
        from transformer_lens import TransformerBridge
    what = f"TransformerLens cannot take {record.architecture} from {folder}"
    try:
        with refusing(what), _with_tokenizer(folder, tokenizer) as name:
            return TransformerBridge.boot_transformers(
                name,
                hf_model=model,
                dtype=dtype,
                device=str(device),
                hf_config_overrides=_overrides(model.config, record),
            )
    except RequestError as error:
        if NO_ADAPTER in str(error):
            raise RequestError(f"{what}: it does not know this model") from None
        raise


def _overrides(config: Any, record: ModelRecord) -> dict[str, Any]:
    """What TransformerLens is told about the model: it divides z by the width of keys, also where values have another."""
    return {"head_dim": record.d_head} if configuration.value_width(config.get_text_config()) else {}


@contextlib.contextmanager
def _with_tokenizer(folder: Path, tokenizer: Any) -> Iterator[str]:
    """A directory from which TransformerLens can load a tokenizer, within the block."""
    if folder.is_dir():
        yield str(folder.resolve())  # a relative path may be one of TransformerLens' short names
        return
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save_pretrained(saved)
        yield saved


def attention_layers(bridge: Any) -> tuple[int, ...]:
    """The layers that have attention with separate heads."""
    return tuple(layer for layer, block in enumerate(bridge.blocks) if _has_output(block))


def output_weights(bridge: Any, record: ModelRecord) -> torch.Tensor:
    """W_O, (L, H, E, D); zeros for a layer without attention, which nothing reads because the layer has no z.

    Raises `RequestError` when no layer has heads, or when their number or size is not what the record says.
    """
    name, layers = record.architecture, attention_layers(bridge)
    if len(bridge.blocks) != record.n_layers:
        raise RequestError(
            f"{name} has {len(bridge.blocks)} blocks in TransformerLens, and its config.json says {record.n_layers}: "
            "alens cannot tell which layer is which"
        )
    if not layers:
        raise RequestError(
            f"{name} has no layer whose attention heads TransformerLens tells apart: alens needs them"
        )
    expected = (record.n_heads, record.d_head, record.d_model)
    matrices = {}
    for layer in layers:
        try:
            matrices[layer] = bridge.blocks[layer].attn.W_O.detach()
            divides = tuple(matrices[layer].shape) == expected
        except (ValueError, RuntimeError, AttributeError):
            divides = False  # heads in experts (JetMoe)
        if not divides:
            raise RequestError(
                f"W_O of layer {layer} of {name} does not divide into {record.n_heads} heads of {record.d_head} numbers, as "
                "its config.json has them: alens does not know such heads"
            )
    empty_HED = torch.zeros_like(matrices[layers[0]])
    return torch.stack([matrices.get(layer, empty_HED) for layer in range(record.n_layers)])


def output_biases(bridge: Any, W_O_LHED: torch.Tensor) -> torch.Tensor:
    """b_O, (L, D), the bias that attention adds to the output of its heads; zeros for a layer without one."""
    biases_LD = W_O_LHED.new_zeros(len(W_O_LHED), W_O_LHED.shape[-1])
    for layer in attention_layers(bridge):
        with contextlib.suppress(AttributeError):  # what TransformerLens raises for a layer without b_O
            if (bias_D := bridge.blocks[layer].attn.b_O) is not None:
                biases_LD[layer] = bias_D.detach()
    return biases_LD


def unembedding(bridge: Any, record: ModelRecord) -> tuple[torch.Tensor, torch.Tensor]:
    """W_U (D, V) and b_U (V). Raises `RequestError` where W_U does not read the residual stream."""
    with refusing(f"TransformerLens gives no unembedding of {record.architecture}"):
        W_U_DV, b_U_V = bridge.W_U.detach(), bridge.b_U.detach()
    if tuple(W_U_DV.shape) != (record.d_model, record.d_vocab):
        raise RequestError(
            f"the unembedding of {record.architecture} is {_shape(W_U_DV)}, and its residual stream and vocabulary make it "
            f"{record.d_model} x {record.d_vocab}: a model that projects its residual stream before the unembedding is "
            "not supported"
        )
    return W_U_DV, b_U_V


def _has_output(block: Any) -> bool:
    """Whether a block has attention with a z and a W_O; the shape of W_O may still be refused."""
    attention = getattr(block, "attn", None)
    return attention is not None and hasattr(type(attention), "W_O")


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
