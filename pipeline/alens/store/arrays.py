"""Which arrays a plan defines: name, shape, dtype, chunks, and the meaning of each.

In: a `Plan`. Out: the specifications from which the writer creates `arrays.zarr`, and by which the reader checks
what it reads. Pure: no file is touched. Shapes: N rows, H heads, E d_head, D d_model, K top-k, M tail
samples, V vocabulary, S shards.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from alens.store.model_record import FOLDED_WRITE, NORMED_WRITE
from alens.store.schema import ATTN_Z, Plan

CHUNK_BYTES = 2 * 2**20
"""The most bytes of an inner chunk: reads of 1 to 4 MB were the fastest."""


CHECKSUM_BYTES, INDEX_BYTES = 4, 16
"""Bytes that a shard's file spends on each chunk: its crc32c, and its place in the index."""

SMALL_BYTES, MOST_COMPRESSED = 64 * 2**20, 1000
"""Where the numbers of a compressed file take more than SMALL_BYTES, they take at most MOST_COMPRESSED times its size."""


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One array of `arrays.zarr`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]
    meaning: str
    rows_per_shard: int
    """How many entries of the first axis a file holds; all of them for the model's own weights."""
    chunk_rows: int
    """How many entries of the first axis an inner chunk holds; divides rows_per_shard."""
    compressed: bool = False
    """Whether chunks are compressed before their checksum is taken: rounded values only."""

    @property
    def is_weight(self) -> bool:
        """Whether it is one of the model's own weights, which have one file and are not divided into shards."""
        return self.name.startswith("model/")

    @property
    def fill(self) -> float | int:
        """The value that a missing file reads as: one that cannot be taken for data."""
        kind = np.dtype(self.dtype)
        return float("nan") if kind.kind == "f" else int(np.iinfo(kind).max)

    @property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * math.prod(self.shape[1:])

    @property
    def least_file_bytes(self) -> int:
        """The fewest bytes that a file of the array can have. A smaller file cannot hold what the plan claims.

        Without compression it holds its numbers, a checksum for each chunk, and the index of its chunks. Rounded values
        of a model compress to a tenth at best.
        """
        numbers = self.row_bytes * self.rows_per_shard
        if self.compressed:
            return 0 if numbers <= SMALL_BYTES else numbers // MOST_COMPRESSED
        chunks = self.rows_per_shard // self.chunk_rows
        return numbers + chunks * (CHECKSUM_BYTES + INDEX_BYTES) + CHECKSUM_BYTES

    def shard_shape(self) -> tuple[int, ...]:
        return (self.rows_per_shard, *self.shape[1:])


OUTPUT_ROWS = 4
"""Where only moments are kept, one in so many rows, on average, counts in the mean output (docs/decisions/0050)."""

SITES = "sites"
"""The folder of arrays.zarr with the values of each site."""

SITE_MEANINGS = {
    "resid_post": "the residual stream after layer {} (TransformerLens hook_resid_post)",
    "mlp_out": "what the MLP of layer {} writes into the residual stream (TransformerLens hook_mlp_out)",
}

_Row = tuple[str, str, tuple[int, ...], tuple[str, ...], str]
"""name, dtype, shape without the first axis, dimensions, meaning"""


def groups(names: Iterable[str]) -> set[str]:
    """Every group that holds one of these arrays, except the root."""
    parts = [name.split("/") for name in names]
    return {"/".join(path[:depth]) for path in parts for depth in range(1, len(path))}


def all_arrays(plan: Plan) -> dict[str, ArraySpec]:
    """Every array of the plan, by name."""
    return {**shard_arrays(plan), **weight_arrays(plan)}


def site_name(layer: int, site: str = ATTN_Z) -> str:
    """The array with the values of a site at a layer; the site is z unless another is named."""
    return f"{SITES}/{site}/{layer:02d}"


def scale_name(layer: int) -> str:
    """The array with the scales of 8-bit z of a layer."""
    return f"scales/{ATTN_Z}/{layer:02d}"


FINAL_SCALE, WRITE_SCALE = "targets/final_scale", "targets/write_scale"
"""The arrays with what norms divide by: the last one, and those behind the attention of the cached layers."""


def statistic_name(layer: int, which: str) -> str:
    """`which` is `sum`, `outer`, `cross` or `cross_scale`."""
    return f"stats/{ATTN_Z}/{layer:02d}/{which}"


DOCUMENT_DTYPE = "uint32"
"""The dtype of `documents.npy`."""


def token_dtype(d_vocab: int) -> str:
    """The smallest unsigned dtype that holds every token id and leaves the largest value as fill."""
    return "uint16" if d_vocab <= 65_535 else "uint32"


@cache
def chunk_rows(row_bytes: int, rows_per_shard: int) -> int:
    """The largest divisor of `rows_per_shard` whose chunk is at most CHUNK_BYTES, and at least one row."""
    most = max(1, min(rows_per_shard, CHUNK_BYTES // max(1, row_bytes)))
    return next(rows for rows in range(most, 0, -1) if rows_per_shard % rows == 0)


def shard_arrays(plan: Plan) -> dict[str, ArraySpec]:
    """The arrays that grow shard by shard, by name."""
    if plan.settings.moments_only:
        return {row[0]: _spec(plan.num_shards, 1, *row) for row in (*_sums(plan), *_sums_with_final(plan))}
    model, settings = plan.model, plan.settings
    heads, d_head = model.n_heads, model.d_head
    ids = token_dtype(model.d_vocab)
    as_int8 = settings.z_dtype == "int8"
    times_scale = ", times its scale in scales/attn.z" if as_int8 else ""
    per_row: list[_Row] = [
        (site_name(layer), settings.z_dtype, (heads, d_head), ("row", "head", "d_head"),
         f"what each head of layer {layer} mixes before W_O (TransformerLens hook_z){times_scale}")
        for layer in plan.layers
    ]  # fmt: skip
    if as_int8:
        per_row += [
            (scale_name(layer), "float16", (heads,), ("row", "head"), f"what 1 in sites/attn.z/{layer:02d} is worth")
            for layer in plan.layers
        ]  # fmt: skip
    per_row += [
        (site_name(layer, site), "float16", (model.d_model,), ("row", "d_model"), SITE_MEANINGS[site].format(layer))
        for site in settings.sites or ()
        for layer in plan.layers
    ]  # fmt: skip
    per_row += [
        ("targets/ids", ids, (settings.top_k,), ("row", "rank"), "the most probable next tokens, most probable first"),
        ("targets/log_probs", "float16", (settings.top_k,), ("row", "rank"), "the log-probabilities of targets/ids under the final softmax, nats"),
        ("targets/logsumexp", "float32", (), ("row",), "logsumexp of the final logits: log-probability + this = logit"),
        ("targets/entropy", "float32", (), ("row",), "entropy of the whole final distribution, nats"),
        ("targets/tail_ids", ids, (settings.tail_samples,), ("row", "sample"), "draws from outside the top k, by probability"),
        ("rows/token", ids, (), ("row",), "the token at the row's position"),
        ("rows/sequence", "uint32", (), ("row",), "its sequence in tokens.npy"),
        ("rows/position", "uint16" if settings.seq_len <= 65_535 else "uint32", (), ("row",), "its position in that sequence"),
    ]  # fmt: skip
    if plan.model.keeps_norm:
        per_row.append(
            (FINAL_SCALE, "float32", (), ("row",), "what the last norm divides the residual stream by at this row")
        )  # fmt: skip
    if plan.model.keeps_write_scale:
        per_row.append(
            (WRITE_SCALE, "float32", (len(plan.layers),), ("row", "layer"), "what the norm behind the attention of each cached layer divides by at this row")
        )  # fmt: skip
    if settings.exact_teacher:
        per_row.append(
            ("targets/final", "float16", (model.d_model,), ("row", "d_model"), "the final residual after the last layer norm: final W_U + b_U = logits")
        )  # fmt: skip
    rounded = settings.keep_bits is not None
    specs = [
        _spec(plan.rows, settings.rows_per_shard, *row, compressed=rounded and row[0].startswith("sites/"))
        for row in per_row
    ]
    sums = [*_sums(plan), *(_sums_with_final(plan) if settings.final_moments else ())]
    specs += [_spec(plan.num_shards, 1, *row) for row in sums]
    return {spec.name: spec for spec in specs}


def _sums(plan: Plan) -> list[_Row]:
    """What every cache keeps of each shard."""
    heads, d_head = plan.model.n_heads, plan.model.d_head
    some = f", made from about one in {OUTPUT_ROWS} of them" if plan.settings.moments_only else ""
    per_shard: list[_Row] = [
        ("stats/output", "float64", (plan.model.d_vocab,), ("shard", "token"),
         f"the summed output distribution of rows at position 1 and later{some}"),
    ]  # fmt: skip
    for layer in plan.layers:
        per_shard += [
            (statistic_name(layer, "sum"), "float64", (heads, d_head), ("shard", "head", "d_head"),
             "sum of z over rows at position 1 and later"),
            (statistic_name(layer, "outer"), "float64", (heads, d_head, d_head), ("shard", "head", "d_head", "d_head_2"),
             "sum of the outer products of z with itself over the same rows"),
        ]  # fmt: skip
    return per_shard


def _sums_with_final(plan: Plan) -> list[_Row]:
    """What caches keep for the closed form: z with the final residual, each around its mean over the shard."""
    model = plan.model
    per_shard: list[_Row] = [
        ("stats/final/sum", "float64", (model.d_model,), ("shard", "d_model"),
         "sum of the final residual after the last layer norm over rows at position 1 and later"),
        ("stats/final/squares", "float64", (model.d_model,), ("shard", "d_model"),
         "sum of its squares around its mean over the shard"),
    ]  # fmt: skip
    for layer in plan.layers:
        per_shard += [
            (statistic_name(layer, "cross"), "float16", (model.n_heads, model.d_head, model.d_model),
             ("shard", "head", "d_head", "d_model"),
             "sum of the products of z with the final residual over the same rows, both around their means over the shard, "
             "divided by cross_scale"),
            (statistic_name(layer, "cross_scale"), "float32", (model.n_heads,), ("shard", "head"),
             f"what 1 in stats/attn.z/{layer:02d}/cross is worth"),
        ]  # fmt: skip
    return per_shard


_W_O_MEANING = {
    FOLDED_WRITE: "head output = z W_O, with the factor that the block multiplies by in W_O",
    NORMED_WRITE: "head output = z W_O / targets/write_scale, with the gain of the norm behind attention in W_O",
}


def weight_arrays(plan: Plan) -> dict[str, ArraySpec]:
    """The few weights of the model that stage two and reading need, float32."""
    model = plan.model
    head_output = _W_O_MEANING.get(model.head_write or "", "head output = z W_O")
    rows = [
        ("model/W_O", (model.n_layers, model.n_heads, model.d_head, model.d_model), ("layer", "head", "d_head", "d_model"), head_output),
        ("model/W_U", (model.d_model, model.d_vocab), ("d_model", "token"), "the unembedding"),
        ("model/b_U", (model.d_vocab,), ("token",), "the bias of the unembedding"),
    ]  # fmt: skip
    if model.keeps_norm:
        rows += [
            ("model/norm_gain", (model.d_model,), ("d_model",), "what the last norm multiplies with, after it divided"),
            ("model/norm_offset", (model.d_model,), ("d_model",), "what the last norm adds at its end"),
        ]  # fmt: skip
    return {
        name: _spec(shape[0], shape[0], name, "float32", shape[1:], dimensions, meaning)
        for name, shape, dimensions, meaning in rows
    }


def _spec(
    first: int,
    per_file: int,
    name: str,
    dtype: str,
    rest: tuple[int, ...],
    dimensions: tuple[str, ...],
    meaning: str,
    compressed: bool = False,
) -> ArraySpec:
    spec = ArraySpec(
        name=name, shape=(first, *rest), dtype=dtype, dimensions=dimensions, meaning=meaning,
        rows_per_shard=per_file, chunk_rows=1, compressed=compressed,
    )  # fmt: skip
    return ArraySpec(**{**spec.__dict__, "chunk_rows": chunk_rows(spec.row_bytes, per_file)})
