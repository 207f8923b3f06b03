"""Cross-entropy against a compressed teacher, with its gradients, on CUDA: one launch for all heads of a target.

In: features, weights and biases of H heads, and the compressed teacher that they share. Out: loss and
gradients in float32. Rows x vocabulary are held a tile at a time, in registers; features get no gradient.
A row and head cost 6 F V flop and 2 V exponentials: logits once for the logsumexp, once more for the
probabilities, then features^T p (docs/decisions/0016). Products take bfloat16 and add in float32 unless told
otherwise. The first call imports Triton; this module does not.
Shapes: H heads, U heads with a loss, G heads of one launch, N rows (P padded), F features, V vocabulary, J entries of a row
of the teacher, C = N J, S parts that share a row's vocabulary.
"""

import functools
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from alens.lens.designs.readout import unit_index

Products = Literal["bfloat16", "tf32", "ieee"]
"""What matrix products read: bfloat16, or float32 cut to 19 bits (tf32) or whole (ieee: no tensor cores)."""

MOST_FEATURES = 128
"""More do not fit beside the tiles: a residual site has d_model of them."""

HEADS_AT_ONCE = 16
"""Bounds the copies of a launch: at F = 64 and V = 50,257 they take 0.3 GB."""

HEADS_OF_A_TOKEN = 4
"""Heads that a program of `target_sums` takes: 1 kB of sums at F = 64."""

PROGRAMS = 1024
"""The fewest programs that a launch of `logsumexps` should have: several for each of an H100's 132 multiprocessors."""

SCALED = 1024
"""Numbers that a program of `scale` takes at a time."""

LOG2E = 1.4426950408889634


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What one program works on at a time. Powers of 2, at least 16."""

    rows: int
    tokens: int
    warps: int
    stages: int
    """How many tiles are loaded from memory while one is worked on."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """One tile for each pass over the vocabulary.

    Defaults: at F = 64 two programs of 8 warps fit a multiprocessor of an H100, without spilling (decision 0016).
    """

    logsumexp: Tile = Tile(rows=256, tokens=64, warps=8, stages=3)
    gradient: Tile = Tile(rows=64, tokens=128, warps=8, stages=3)

    @property
    def rows(self) -> int:
        """Rows are padded to a multiple of this."""
        return max(self.logsumexp.rows, self.gradient.rows)

    @property
    def tokens(self) -> int:
        """The vocabulary is padded to a multiple of this."""
        return max(self.logsumexp.tokens, self.gradient.tokens)


TENSOR_CORES = Tiles()
WHOLE_FLOAT32 = Tiles(
    logsumexp=Tile(rows=32, tokens=32, warps=4, stages=2),
    gradient=Tile(rows=32, tokens=32, warps=4, stages=2),
)
"""Without tensor cores both factors of a product lie in registers: larger tiles spill."""


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The teacher by token: token v's entries are `starts_V[v]` to `starts_V[v + 1]`."""

    rows_C: torch.Tensor
    weights_C: torch.Tensor
    starts_V: torch.Tensor

    @classmethod
    def sorted_by_token(cls, ids_NJ: torch.Tensor, weights_NJ: torch.Tensor, vocabulary: int) -> "Entries":
        """Made once for a batch and shared by all heads. The sort is stable, so that sums have one order."""
        sorted_C, order_C = ids_NJ.flatten().int().sort(stable=True)
        tokens_V = torch.arange(vocabulary + 1, dtype=torch.int32, device=ids_NJ.device)
        return cls(
            rows_C=(order_C // ids_NJ.shape[1]).int(),
            weights_C=weights_NJ.flatten().float()[order_C],
            starts_V=torch.searchsorted(sorted_C, tokens_V, out_int32=True),
        )


def available(num_features: int = 1) -> str | None:
    """Why the kernel cannot be used here for this many features, or None where it can."""
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    if torch.cuda.get_device_capability() < (8, 0):
        return f"{torch.cuda.get_device_name()} has no bfloat16 products"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if num_features > MOST_FEATURES:
        return f"the kernel takes at most {MOST_FEATURES} features, not {num_features}"
    return None


def trial(num_features: int, device: torch.device) -> str | None:
    """Why the kernel cannot be built or launched on a device, or None where it gives the loss of an easy case.

    Triton wants a driver, a C compiler, and a directory for what it builds: all of them only when it launches.
    """
    return _trial(_padded_features(num_features), device)


@functools.cache
def _trial(num_features: int, device: torch.device) -> str | None:
    try:
        features_11F, weight_1F2, bias_12 = (
            torch.zeros(shape, device=device)
            for shape in ((1, 1, num_features), (1, num_features, 2), (1, 2))
        )
        ids_11, weights_11 = bias_12[:, :1].long(), bias_12[:, :1] + 1
        loss_1, grad_1F2, _ = cross_entropy_and_gradients(
            features_11F, weight_1F2, bias_12, ids_11, weights_11
        )
        scale(grad_1F2, torch.ones_like(loss_1))
        loss = float(loss_1)
    except Exception as error:  # each part of Triton and of the compiler has errors of its own
        said = str(error).strip().splitlines()
        return f"Triton cannot build or start it: {said[0] if said else type(error).__name__}"
    return (
        None if math.isclose(loss, math.log(2), rel_tol=1e-2) else f"a trial gave a loss of {loss}, not log 2"
    )


def cross_entropy_and_gradients(
    features_UNF: torch.Tensor,
    weight_HFV: torch.Tensor,
    bias_HV: torch.Tensor,
    ids_NJ: torch.Tensor,
    weights_NJ: torch.Tensor,
    *,
    products: Products = "bfloat16",
    tiles: Tiles | None = None,
    kept: dict[str, Any] | None = None,
    heads: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss_U, grad_weight_HFV, grad_bias_HV), float32.

    Loss: the mean over rows of logsumexp(logits) - sum_j weights[j] logits[ids[j]], where logits =
    features weight + bias. Each row of `weights_NJ` sums to 1; ids may repeat. The loss is that of features and weights as
    rounded for the products. `kept` keeps the order of the targets for the next call with the same ones.
    `heads` are the U heads of the features, None for all; the others' gradients are 0.
    """
    H, _, V = weight_HFV.shape
    heads = tuple(range(H)) if heads is None else tuple(heads)
    tiles = tiles or (WHOLE_FLOAT32 if products == "ieee" else TENSOR_CORES)
    entries = _entries(ids_NJ, weights_NJ, V, kept)
    loss_U = features_UNF.new_empty(len(heads), dtype=torch.float32)
    grad_weight_HFV = torch.empty_like(weight_HFV, dtype=torch.float32, memory_format=torch.contiguous_format)
    grad_bias_HV = torch.empty_like(bias_HV, dtype=torch.float32, memory_format=torch.contiguous_format)
    for head in set(range(H)).difference(heads):
        grad_weight_HFV[head].zero_()
        grad_bias_HV[head].zero_()
    for first in range(0, len(heads), HEADS_AT_ONCE):
        some = slice(first, first + HEADS_AT_ONCE)
        padded = _Padded.for_launch(
            features_UNF[some], weight_HFV, bias_HV, heads[some], products=products, tiles=tiles
        )
        with torch.cuda.device_of(features_UNF):  # Triton launches on the current device
            loss_U[some] = _launch(padded, entries, grad_weight_HFV, grad_bias_HV, tiles)
    return loss_U, grad_weight_HFV, grad_bias_HV


def scale(gradients_HX: torch.Tensor, scales_H: torch.Tensor) -> None:
    """Multiply the float32 gradients of each head by its scale, in place. Scales of 1 cost a launch, and no wait."""
    from alens.fit.objectives import cross_entropy_kernels as kernels

    size = gradients_HX[0].numel()
    with torch.cuda.device_of(gradients_HX):
        kernels.scale[min(PROGRAMS, -(-size // SCALED)), len(gradients_HX)](
            gradients_HX, scales_H.contiguous(), size, SIZE=SCALED, num_warps=4
        )


def _entries(
    ids_NJ: torch.Tensor, weights_NJ: torch.Tensor, vocabulary: int, kept: dict[str, Any] | None
) -> Entries:
    if kept is not None and "entries" in kept:
        there: Entries = kept["entries"]
        return there
    made = Entries.sorted_by_token(ids_NJ, weights_NJ, vocabulary)
    if kept is not None:
        kept["entries"] = made
    return made


@dataclass(frozen=True, kw_only=True)
class _Padded:
    """Heads of one launch in the type of the products, padded to whole tiles and aligned for wide loads."""

    features_GPF: torch.Tensor
    weight_GFV: torch.Tensor
    bias_GV: torch.Tensor
    """bias x log2(e); -inf past the vocabulary, where probabilities are 0."""
    places_G: torch.Tensor
    """int64: the places of these heads among all."""
    num_rows: int
    precision: str

    @classmethod
    def for_launch(
        cls,
        features_GNF: torch.Tensor,
        weight_HFV: torch.Tensor,
        bias_HV: torch.Tensor,
        heads: tuple[int, ...],
        *,
        products: Products,
        tiles: Tiles,
    ) -> "_Padded":
        (G, N, F), V = features_GNF.shape, weight_HFV.shape[-1]
        dtype = torch.bfloat16 if products == "bfloat16" else torch.float32
        P, VP = _up(N, tiles.rows), _up(V, tiles.tokens)
        FP = _padded_features(F)
        features_GPF = _with_zeros(features_GNF, range(G), P, FP, dtype)
        weight_GFV = _with_zeros(weight_HFV, heads, FP, VP, dtype)
        places_G = unit_index(heads, bias_HV.device)
        bias_GV = bias_HV.new_full((G, VP), -torch.inf, dtype=torch.float32)
        bias_GV[:, :V] = bias_HV.index_select(0, places_G).float() * LOG2E
        precision = "ieee" if products == "bfloat16" else products  # Triton asks only for float32
        return cls(
            features_GPF=features_GPF,
            weight_GFV=weight_GFV,
            bias_GV=bias_GV,
            places_G=places_G,
            num_rows=N,
            precision=precision,
        )


def _launch(
    padded: _Padded,
    entries: Entries,
    grad_weight_HFV: torch.Tensor,
    grad_bias_HV: torch.Tensor,
    tiles: Tiles,
) -> torch.Tensor:
    """(G,) losses; fills the gradients of these heads."""
    from alens.fit.objectives import cross_entropy_kernels as kernels

    z, w, b = padded.features_GPF, padded.weight_GFV, padded.bias_GV
    G, P, FP = z.shape
    F, V, VP = grad_weight_HFV.shape[1], grad_bias_HV.shape[1], b.shape[1]

    sums_VGF, masses_V = z.new_empty(V, G, FP, dtype=torch.float32), b.new_empty(V)
    kernels.target_sums[V, -(-G // HEADS_OF_A_TOKEN)](
        z, entries.rows_C, entries.weights_C, entries.starts_V, sums_VGF, masses_V, G, P,
        FP=FP, HEADS=HEADS_OF_A_TOKEN, ENTRIES=16, num_warps=4,
    )  # fmt: skip

    one = tiles.logsumexp
    num_tiles, blocks = VP // one.tokens, P // one.rows
    a_part = -(-num_tiles // max(1, -(-PROGRAMS // (blocks * G))))
    parts_SGP = b.new_empty(-(-num_tiles // a_part), G, P)
    kernels.logsumexps[blocks, len(parts_SGP), G](
        z, w, b, parts_SGP, G, P, VP, a_part * one.tokens,
        FP=FP, ROWS=one.rows, TOKENS=one.tokens, PRECISION=padded.precision,
        num_warps=one.warps, num_stages=one.stages,
    )  # fmt: skip
    logsumexp_GP = parts_SGP.logsumexp(dim=0)
    loss_G = logsumexp_GP[:, : padded.num_rows].mean(dim=1)
    logsumexp_GP[:, padded.num_rows :] = torch.inf  # rows that are padding get probability 0 everywhere

    two = tiles.gradient
    expected_GT = b.new_empty(G, VP // two.tokens)
    kernels.gradients[VP // two.tokens, G](
        z, w, b, logsumexp_GP * LOG2E, sums_VGF, masses_V, grad_weight_HFV, grad_bias_HV, expected_GT,
        padded.places_G, G, F, P, VP, padded.num_rows, V,
        FP=FP, ROWS=two.rows, TOKENS=two.tokens, PRECISION=padded.precision,
        num_warps=two.warps, num_stages=two.stages,
    )  # fmt: skip
    return loss_G - expected_GT.sum(dim=1) / padded.num_rows


def _with_zeros(
    values_HRC: torch.Tensor, heads: Sequence[int], rows: int, columns: int, dtype: torch.dtype
) -> torch.Tensor:
    """(G, rows, columns): a copy of these heads with zeros behind their rows and columns."""
    _, R, C = values_HRC.shape
    padded = values_HRC.new_empty(len(heads), rows, columns, dtype=dtype)
    padded[:, R:].zero_()
    padded[:, :R, C:].zero_()
    place = 0
    while place < len(heads):  # heads that follow each other in one copy
        first, stop = heads[place], place + 1
        while stop < len(heads) and heads[stop] == first + stop - place:
            stop += 1
        padded[place:stop, :R, :C] = values_HRC[first : first + stop - place]
        place = stop
    return padded


def _padded_features(num_features: int) -> int:
    """Triton's products and ranges want powers of 2."""
    return max(16, 1 << (num_features - 1).bit_length())


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
