"""Numbers that no model gives are refused where they are read, though every hash is right."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alens.errors import DamageError
from alens.store import values as limits
from alens.store.arrays import shard_arrays
from alens.store.cache_reader import open_cache
from alens.store.schema import Plan
from alens.store.writer import ShardWriter, put_skeleton

Array = npt.NDArray[Any]
Values = Callable[[Plan, int], dict[str, Array]]
Z0 = "sites/attn.z/00"


def put(value: float, at: tuple[int, ...] = (3,)) -> Callable[[Array], None]:
    def change(array: Array) -> None:
        array[at] = value

    return change


def fill(value: float) -> Callable[[Array], None]:
    return lambda array: array.fill(value)


CANNOT_BE: list[tuple[str, Callable[[Array], None], str]] = [
    (Z0, put(np.nan, (3, 1, 2)), r"numbers that are not finite \(head 1\)"),
    (Z0, put(-np.inf, (3, 0, 2)), r"numbers that are not finite \(head 0\)"),
    ("sites/resid_post/00", put(np.nan), "numbers that are not finite"),
    ("sites/mlp_out/00", put(np.inf), "numbers that are not finite"),
    ("targets/ids", put(50), r"token ids from \d+ to 50, where 0 to 49 can be"),
    ("targets/tail_ids", put(65535), "token ids from 0 to 65535, where 0 to 49 can be"),
    ("rows/token", put(50), r"token ids from \d+ to 50, where 0 to 49 can be"),
    ("targets/log_probs", put(0.5), "log-probabilities from -49 to 0.5, where -inf to 0.01 can be"),
    ("targets/log_probs", put(np.nan), "log-probabilities from nan to nan"),
    ("targets/entropy", put(-1e30), r"entropies from -1e\+30 to .*, where -0.01 to 3.9"),
    ("targets/entropy", put(3.95), "entropies from 0.* to 3.95, where -0.01 to 3.9"),
    ("targets/entropy", put(np.nan), "numbers that are not finite"),
    ("targets/logsumexp", put(np.inf), "numbers that are not finite"),
    ("rows/position", put(8), "positions from 0 to 8, where 0 to 7 can be"),
    ("rows/sequence", put(0), "sequences from 0 to 7, where 4 to 7 can be"),
    ("stats/output", put(-0.1, (0, 3)), "summed probabilities from -0.1"),
    ("stats/output", fill(1.0), "sums of distributions from 50 to 50, where 27.72 to 28.28 can be"),
    ("stats/output", put(np.nan, (0, 3)), "numbers that are not finite"),
    ("stats/attn.z/00/sum", put(np.nan, (0, 1, 2)), r"numbers that are not finite \(head 1\)"),
    ("stats/attn.z/00/outer", put(np.inf, (0, 1, 2, 3)), r"numbers that are not finite \(head 1\)"),
]


@pytest.fixture
def plan(tiny_plan: Plan) -> Plan:
    settings = dataclasses.replace(tiny_plan.settings, sites=("resid_post", "mlp_out"))
    return dataclasses.replace(tiny_plan, settings=settings)


@pytest.mark.parametrize(("name", "change", "message"), CANNOT_BE)
def test_what_cannot_be_is_named(
    tmp_path: Path,
    plan: Plan,
    values: Values,
    tiny_weights: dict[str, Any],
    name: str,
    change: Callable[[Array], None],
    message: str,
) -> None:
    put_skeleton(tmp_path, plan, tiny_weights)
    arrays = values(plan, 1)
    change(arrays[name])
    ShardWriter(tmp_path, plan).write(1, arrays, {})
    file = f"arrays.zarr/{name}/c.1"
    with pytest.raises(
        DamageError, match=f"{file}.* has {message}.*: `alens verify` says whether it was altered"
    ):
        open_cache(tmp_path).read_shard(name, 1)


@pytest.mark.parametrize("name", ["W_O", "W_U", "b_U"])
def test_weights_that_are_not_finite_are_named(
    tmp_path: Path, plan: Plan, tiny_weights: dict[str, Any], name: str
) -> None:
    weights = {key: value.copy() for key, value in tiny_weights.items()}
    weights[f"model/{name}"].flat[7] = np.nan
    put_skeleton(tmp_path, plan, weights)
    with pytest.raises(DamageError, match=f"arrays.zarr/model/{name}/c.* has numbers that are not finite"):
        open_cache(tmp_path).weights(name)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_finite_is_what_numpy_calls_finite(dtype: type) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(dtype)
    for number in every[:: 1 if dtype is np.float16 else 997]:
        assert limits._finite(np.array([0, number, 1], dtype)) == bool(np.isfinite(number))


def test_what_a_model_gives_can_be(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    for name in shard_arrays(cache.plan):
        assert np.isfinite(cache.read_shard(name, 0)).all()


def test_tokens_that_the_model_does_not_have_are_named(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    cache.plan = dataclasses.replace(cache.plan, model=dataclasses.replace(cache.plan.model, d_vocab=100))
    with pytest.raises(DamageError, match=r"tokens.npy has \d+ among 100 tokens"):
        _ = cache.tokens


def test_documents_that_the_text_does_not_have_are_named(document_cache: Path) -> None:
    cache = open_cache(document_cache)
    cache.plan = dataclasses.replace(cache.plan, tokens=dataclasses.replace(cache.plan.tokens, documents=1))
    with pytest.raises(DamageError, match=r"documents.npy has \d+ among 1 documents"):
        _ = cache.token_documents
