"""A plan small enough to be written hundreds of times, and numbers for its shards, without a model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alens.store import durable
from alens.store.arrays import shard_arrays, weight_arrays
from alens.store.cache_reader import open_cache
from alens.store.model_record import ModelRecord
from alens.store.schema import CacheSettings, CorpusFile, CorpusRecord, Plan, TokensRecord
from alens.store.writer import ShardWriter, put_manifest, put_skeleton

from ..object_servers import S3Server
from .whole_caches import ENCODINGS, write

Values = Callable[[Plan, int], dict[str, npt.NDArray[Any]]]


@pytest.fixture(scope="session")
def tiny_plan() -> Plan:
    """3 shards of 32 rows, 1 layer, 2 heads."""
    return Plan(
        model=ModelRecord(
            id="tiny",
            revision=None,
            weights_sha256="1" * 64,
            architecture="GPT2LMHeadModel",
            n_layers=1,
            n_heads=2,
            d_head=4,
            d_model=8,
            d_vocab=50,
            n_ctx=16,
        ),
        corpus=CorpusRecord(
            id="tiny.txt",
            revision=None,
            split="train",
            text_column="text",
            document_column=None,
            row_documents=False,
            files=(CorpusFile(name="tiny.txt", bytes=5, sha256="2" * 64),),
        ),
        settings=CacheSettings(seq_len=8, rows_per_shard=32, top_k=3, tail_samples=2),
        tokens=TokensRecord(
            sha256="3" * 64, sequences=12, sequences_left_out=0, tokenizer_sha256="4" * 64, end_of_text=0
        ),
    )


@pytest.fixture(scope="session")
def values() -> Values:
    """The arrays of a shard, with possible numbers: different for each shard, the same at each call."""

    def make(plan: Plan, shard: int) -> dict[str, npt.NDArray[Any]]:
        draw, settings = np.random.default_rng(shard), plan.settings
        made = {
            name: draw.integers(0, 50, spec.shard_shape()).astype(spec.dtype)
            for name, spec in shard_arrays(plan).items()
        }
        made["targets/log_probs"] *= -1
        made["targets/entropy"] = (made["targets/entropy"] / 13).astype(np.float32)  # at most log 50 = 3.9
        made["rows/position"] %= settings.seq_len
        sequences = made["rows/sequence"] % settings.sequences_per_shard
        made["rows/sequence"] = sequences + np.uint32(shard * settings.sequences_per_shard)
        output = made["stats/output"] + 1
        rows = settings.sequences_per_shard * (settings.seq_len - 1)
        made["stats/output"] = output / output.sum() * rows
        return made

    return make


@pytest.fixture(scope="session")
def tiny_weights(tiny_plan: Plan) -> dict[str, npt.NDArray[np.float32]]:
    draw = np.random.default_rng(9)
    return {
        name: draw.normal(size=spec.shape).astype(np.float32)
        for name, spec in weight_arrays(tiny_plan).items()
    }


@pytest.fixture(scope="session")
def write_tiny(tiny_plan: Plan, values: Values, tiny_weights: dict[str, Any]) -> Callable[..., Path]:
    """`write_tiny(root, keep_bits=5)` writes and seals the tiny plan, with the settings that are given."""

    def write(root: Path, **settings: Any) -> Path:
        plan = dataclasses.replace(tiny_plan, settings=dataclasses.replace(tiny_plan.settings, **settings))
        put_skeleton(root, plan, tiny_weights)
        writer = ShardWriter(root, plan)
        files = {}
        for shard in range(plan.num_shards):
            writer.write(shard, values(plan, shard), {"note": "by a test"})
            files[shard] = {key: {"sha256": sha} for key, (_, sha) in writer._store.written.items()}
        put_manifest(root, plan, files)
        return root

    return write


@pytest.fixture(scope="session")
def sealed_tiny(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """The tiny plan, written and sealed. Shared: copy it before writing."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "store")


@pytest.fixture(scope="session")
def rounded_tiny(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """The same with both further sites, rounded and compressed. Shared: copy it before writing."""
    root = tmp_path_factory.mktemp("tiny") / "rounded"
    return write_tiny(root, keep_bits=4, sites=("resid_post", "mlp_out"))


@pytest.fixture(scope="session")
def int8_tiny(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """The same with z in 8 bits. Shared: copy it before writing."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "int8", z_dtype="int8")


@pytest.fixture(scope="session")
def near(wholes: dict[str, Path]) -> Path:
    """A sealed cache of 3 shards with tokens. Shared: copy it before writing."""
    return wholes["float16"]


@pytest.fixture(scope="session")
def near_address(moto: S3Server, near: Path) -> str:
    return moto.upload(near)


@pytest.fixture
def far(near_address: str, s3: S3Server, impatient: None) -> str:
    """The address of a copy of `near`, never to be written; copies of what is read go to a new folder."""
    return near_address


@pytest.fixture
def store(sealed_tiny: Path, copy_of: Callable[[Path], Path]) -> Path:
    """A copy of the tiny cache."""
    return copy_of(sealed_tiny)


@pytest.fixture(scope="session")
def wholes(
    tmp_path_factory: pytest.TempPathFactory, tiny_plan: Plan, values: Any, tiny_weights: dict[str, Any]
) -> dict[str, Path]:
    """A sealed cache of 3 shards with tokens, in each encoding. Shared: copy it before writing."""
    roots = {}
    for name, changes in ENCODINGS.items():
        root = roots[name] = tmp_path_factory.mktemp("whole") / name
        root.mkdir()
        np.save(root / "tokens.npy", np.arange(96, dtype=np.uint16).reshape(12, 8) % 50)
        plan = dataclasses.replace(
            tiny_plan,
            settings=dataclasses.replace(tiny_plan.settings, **changes),
            tokens=dataclasses.replace(tiny_plan.tokens, sha256=durable.sha256_of(root / "tokens.npy")),
        )
        put_skeleton(root, plan, tiny_weights)
        for shard in range(plan.num_shards):
            write(root, plan, values, shard)
        put_manifest(root, plan, open_cache(root).files_by_shard())
    return roots


@pytest.fixture(params=ENCODINGS)
def every(request: pytest.FixtureRequest, wholes: dict[str, Path], copy_of: Callable[[Path], Path]) -> Path:
    """A copy of a whole cache, in one encoding after the other."""
    return copy_of(wholes[request.param])


QUICK_AND_SLOW: list[Any] = [
    pytest.param(name, marks=[] if name == "float16" else pytest.mark.slow) for name in ENCODINGS
]


@pytest.fixture(params=QUICK_AND_SLOW)
def every_harmed(
    request: pytest.FixtureRequest, wholes: dict[str, Path], copy_of: Callable[[Path], Path]
) -> Path:
    """The same, for tests that verify it some hundred times: one encoding quick, the others with the slow tests."""
    return copy_of(wholes[request.param])


@pytest.fixture
def whole_store(wholes: dict[str, Path], copy_of: Callable[[Path], Path]) -> Path:
    """A copy of a whole cache."""
    return copy_of(wholes["float16"])
