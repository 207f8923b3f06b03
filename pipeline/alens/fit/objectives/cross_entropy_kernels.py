"""The CUDA kernels behind `cross_entropy_triton`, in Triton, which must be installed.

In: padded tensors (see there), so that no load in a hot loop is masked. Out: results in tensors that the caller made.
Every kernel takes its head from the number of its program, so one launch serves all heads that share a target.
Order of launches: `target_sums` (a sparse product), `logsumexps` (pass one over the vocabulary), `gradients`
(pass two); in the backward pass `scale`. No kernel adds into memory that another program writes: results repeat bit for bit.
Source of the form: `gradients` is the forward pass of FlashAttention-2 (arXiv 2307.08691) with tokens as
queries and rows as keys and values, except that the normaliser belongs to the key and is known beforehand.
Shapes: H heads, N rows (NP padded), F features (FP padded), V vocabulary (VP padded), C entries of
the teacher in the order of their tokens, S parts that share a row's vocabulary.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LEAST = tl.constexpr(-3.0e38)
"""Finite, so that a tile of tokens that all have probability 0 makes no NaN."""


@triton.jit
def target_sums(
    features_HNF, rows_C, weights_C, starts_V, sums_VHF, masses_V, num_heads, num_rows,
    FP: tl.constexpr, HEADS: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """sums[v, h]: the weighted sum of the features of head h over the entries of v; masses[v]: the sum of v's weights.

    A program takes one token and HEADS heads. Weights stay float32. The sums of a token without entries are not written, and
    those of a token without mass are not read: at 1,024 rows that is most of the vocabulary.
    """
    token, group = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, HEADS * FP)
    heads, present = group * HEADS + columns // FP, group * HEADS + columns // FP < num_heads
    places = heads.to(tl.int64) * num_rows * FP + columns % FP
    sums, masses = tl.zeros([ENTRIES, HEADS * FP], tl.float32), tl.zeros([ENTRIES], tl.float32)
    first, last = tl.load(starts_V + token), tl.load(starts_V + token + 1)
    for start in range(first, last, ENTRIES):
        entries = start + tl.arange(0, ENTRIES)
        valid = entries < last
        rows = tl.load(rows_C + entries, mask=valid, other=0)
        weights = tl.load(weights_C + entries, mask=valid, other=0.0)
        wanted = valid[:, None] & present[None, :]
        values = tl.load(features_HNF + places[None, :] + rows[:, None] * FP, mask=wanted, other=0.0)
        sums += weights[:, None] * values.to(tl.float32)
        masses += weights
    into = sums_VHF + token.to(tl.int64) * num_heads * FP + group * HEADS * FP + columns
    tl.store(into, tl.sum(sums, axis=0), mask=present & (last > first))
    if group == 0:
        tl.store(masses_V + token, tl.sum(masses, axis=0))


@triton.jit
def logsumexps(
    features_HNF, weight_HFV, bias_HV, parts_SHN, num_heads, num_rows, vocabulary, tokens_a_part,
    FP: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """parts[s, h, n] = logsumexp of the logits of row n over part s of the vocabulary, in nats.

    `bias_HV` holds bias x log2(e), and -inf past the vocabulary. A program keeps its rows' features, goes
    through the tokens of its part, and keeps a sum for each row, shifted by the row's largest logit in the first tile. A sum
    is then at least 1, and exact to rounding unless it overflows: a later logit may be 88 nats above all of the first tile.
    Then the program goes through its tokens again, with a running maximum (online softmax).
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part, head = tl.program_id(1), tl.program_id(2)
    columns, within = tl.arange(0, FP), tl.arange(0, TOKENS)
    features = tl.load(
        features_HNF + head.to(tl.int64) * num_rows * FP + rows[:, None] * FP + columns[None, :]
    )
    bias_V = bias_HV + head.to(tl.int64) * vocabulary + within
    weight_FV = (
        weight_HFV + head.to(tl.int64) * FP * vocabulary + columns[:, None] * vocabulary + within[None, :]
    )
    first = part * tokens_a_part
    last = tl.minimum(first + tokens_a_part, vocabulary)
    logits = tl.dot(features, tl.load(weight_FV + first), input_precision=PRECISION) * LOG2E
    logits += tl.load(bias_V + first)[None, :]
    peaks = tl.maximum(tl.max(logits, axis=1), LEAST)
    totals = tl.sum(tl.exp2(logits - peaks[:, None]), axis=1)
    for start in range(first + TOKENS, last, TOKENS):
        logits = tl.dot(features, tl.load(weight_FV + start), input_precision=PRECISION) * LOG2E
        shifted = tl.load(bias_V + start)[None, :] - peaks[:, None]
        totals += tl.sum(tl.exp2(logits + shifted), axis=1)
    if tl.max((totals < float("inf")).to(tl.int32) ^ 1, axis=0) > 0:  # or NaN
        peaks, totals = tl.full([ROWS], LEAST, tl.float32), tl.zeros([ROWS], tl.float32)
        for start in tl.range(first, last, TOKENS, num_stages=1):
            logits = tl.dot(features, tl.load(weight_FV + start), input_precision=PRECISION) * LOG2E
            logits += tl.load(bias_V + start)[None, :]
            higher = tl.maximum(peaks, tl.max(logits, axis=1))
            totals = totals * tl.exp2(peaks - higher) + tl.sum(tl.exp2(logits - higher[:, None]), axis=1)
            peaks = higher
    into = parts_SHN + (part * num_heads + head).to(tl.int64) * num_rows + rows
    tl.store(into, (peaks + tl.log2(totals)) * LN2)


@triton.jit
def gradients(
    features_HNF, weight_HFV, bias_HV, logsumexp_HN, sums_VHF, masses_V, grad_weight_HFV, grad_bias_HV, expected_HT,
    places_H, num_heads, num_features, num_rows, vocabulary, real_rows, real_vocabulary,
    FP: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of tokens, and what the tile adds to the expected logits under the teacher.

    `bias_HV` as in `logsumexps`; `logsumexp_HN` holds logsumexp x log2(e), and inf past the rows. A program keeps
    its tokens' weights, goes through all rows, makes their probabilities anew and adds up features^T p.
    It starts from minus the teacher's sums, so p - t is never held. Head h of a launch is head `places_H[h]` of the gradients.
    """
    tile, head = tl.program_id(0), tl.program_id(1)
    tokens = tile * TOKENS + tl.arange(0, TOKENS)
    real = tokens < real_vocabulary
    columns = tl.arange(0, FP)
    features_NF = features_HNF + head.to(tl.int64) * num_rows * FP
    logsumexp_N = logsumexp_HN + head.to(tl.int64) * num_rows
    weight_FV = weight_HFV + head.to(tl.int64) * FP * vocabulary
    weight = tl.trans(tl.load(weight_FV + columns[:, None] * vocabulary + tokens[None, :]))
    bias = tl.load(bias_HV + head.to(tl.int64) * vocabulary + tokens)
    masses = tl.load(masses_V + tokens, mask=real, other=0.0)
    sums = tl.load(
        sums_VHF + (tokens.to(tl.int64)[:, None] * num_heads + head) * FP + columns[None, :],
        mask=(real & (masses > 0.0))[:, None], other=0.0,
    )  # fmt: skip
    # Expected logits over all rows are <W, sums> + <b, masses>: no logit is ever looked up by its id.
    by_bias = tl.where(masses > 0.0, masses * bias * LN2, 0.0)
    expected = tl.sum(tl.sum(weight.to(tl.float32) * sums, axis=1) + by_bias, axis=0)
    tl.store(expected_HT + head * tl.num_programs(0) + tile, expected)

    sums, masses = -sums, -masses
    for start in range(0, num_rows, ROWS):
        rows = start + tl.arange(0, ROWS)
        features = tl.load(features_NF + rows[:, None] * FP + columns[None, :])
        logsumexp = tl.load(logsumexp_N + rows)
        logits = tl.dot(weight, tl.trans(features), input_precision=PRECISION)
        probs = tl.exp2(logits * LOG2E + (bias[:, None] - logsumexp[None, :]))
        masses += tl.sum(probs, axis=1)
        sums = tl.dot(probs.to(features.dtype), features, sums, input_precision=PRECISION)

    share = 1.0 / real_rows
    wanted = (columns < num_features)[None, :] & real[:, None]
    place = tl.load(places_H + head).to(tl.int64)
    grad_FV = grad_weight_HFV + place * num_features * real_vocabulary
    into = grad_FV + columns.to(tl.int64)[None, :] * real_vocabulary + tokens[:, None]
    tl.store(into, sums * share, mask=wanted)
    tl.store(grad_bias_HV + place * real_vocabulary + tokens, masses * share, mask=real)


@triton.jit
def scale(gradients_HS, scales_H, size, SIZE: tl.constexpr):
    """gradients[h] *= scales[h], in place; S numbers of a head. Where the scale is 1, no number is read or written.

    The GPU looks at the scale: to look at it in Python would wait for all that was launched.
    """
    head = tl.program_id(1)
    scale = tl.load(scales_H + head).to(tl.float32)
    if scale != 1.0:
        gradients_S = gradients_HS + head.to(tl.int64) * size
        for start in range(tl.program_id(0) * SIZE, size, tl.num_programs(0) * SIZE):
            places = start + tl.arange(0, SIZE)
            values = tl.load(gradients_S + places, mask=places < size)
            tl.store(gradients_S + places, values * scale, mask=places < size)
