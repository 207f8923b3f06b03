"""A store whose best lens is known, and fits from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alens import FitRequest, fit_lenses, randomness
from alens.cache import target_compression
from alens.fit.settings import FitSettings
from alens.lens.record import LensRecord
from alens.store import durable
from alens.store.cache_reader import open_cache
from alens.store.model_record import ModelRecord
from alens.store.paths import StorePaths
from alens.store.schema import CacheSettings, CorpusRecord, Plan, TokensRecord
from alens.store.writer import ShardWriter, put_manifest, put_skeleton

from ..stops import Stop

T, H, E, D, V = 8, 2, 4, 6, 96
SETTINGS = CacheSettings(seq_len=T, rows_per_shard=512, top_k=8, tail_samples=8, exact_teacher=True)
MODEL = ModelRecord(
    id="planted",
    revision=None,
    weights_sha256="0" * 64,
    architecture="none",
    n_layers=1,
    n_heads=H,
    d_head=E,
    d_model=D,
    d_vocab=V,
    n_ctx=T,
)


@pytest.fixture(scope="session")
def planted_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 shards of 512 rows; the final logits are affine in z of head 0, and head 1 is noise."""
    root = tmp_path_factory.mktemp("planted") / "store"
    put_planted(root, num_shards=12)
    return root


@pytest.fixture(scope="session")
def plant() -> Callable[..., None]:
    """`plant(root, num_shards=n)` writes such a store; another `seed` gives other numbers."""
    return put_planted


def put_planted(root: Path, *, num_shards: int, seed: int = 0) -> None:
    root.mkdir(parents=True)
    random = np.random.default_rng(seed)
    rows = SETTINGS.rows_per_shard
    tokens = random.integers(0, V, (num_shards * rows // T, T)).astype(np.uint16)
    np.save(root / "tokens.npy", tokens)
    plan = Plan(
        model=MODEL,
        corpus=CorpusRecord(
            id="planted",
            revision=None,
            split="train",
            text_column="text",
            document_column=None,
            row_documents=False,
            files=(),
        ),
        settings=SETTINGS,
        tokens=TokensRecord(
            sha256=durable.sha256_of(StorePaths(root).tokens),
            sequences=len(tokens),
            sequences_left_out=0,
            tokenizer_sha256="0" * 64,
            end_of_text=None,
        ),
    )
    mix_EE = random.normal(size=(E, E)) * [3.0, 1.0, 0.3, 0.1]  # badly scaled, as z of real heads is
    to_final_ED = np.linalg.inv(mix_EE) @ random.normal(size=(E, D))
    weights = {
        "model/W_O": random.normal(size=(1, H, E, D)),
        "model/W_U": random.normal(size=(D, V)) * 0.7,
        "model/b_U": random.normal(size=V),
    }
    put_skeleton(root, plan, {name: values.astype(np.float32) for name, values in weights.items()})
    writer = ShardWriter(root, plan)
    for shard in range(num_shards):
        z_NHE = (random.normal(size=(rows, H, E)) @ mix_EE + 1.0).astype(np.float16)
        final_ND = (z_NHE[:, 0].astype(np.float64) @ to_final_ED).astype(np.float16)
        order = randomness.permutation(rows, 0, randomness.ROW_ORDER, shard)
        row = shard * rows + order
        counted = torch.from_numpy(row % T > 0)
        output_V = torch.zeros(V, dtype=torch.float64)
        block = target_compression.compress(
            torch.from_numpy(final_ND).float(),
            torch.from_numpy(weights["model/W_U"]).float(),
            torch.from_numpy(weights["model/b_U"]).float(),
            torch.from_numpy(random.random((rows, SETTINGS.tail_samples))),
            SETTINGS.top_k,
            counted,
            output_V,
        )
        kept_HNE = z_NHE[counted.numpy()].astype(np.float64).swapaxes(0, 1)
        arrays = {
            "sites/attn.z/00": z_NHE,
            "targets/ids": block.ids_NK.numpy().astype(np.uint16),
            "targets/log_probs": block.log_probs_NK.numpy().astype(np.float16),
            "targets/logsumexp": block.logsumexp_N.numpy(),
            "targets/entropy": block.entropy_N.numpy(),
            "targets/tail_ids": block.tail_ids_NM.numpy().astype(np.uint16),
            "targets/final": final_ND,
            "rows/token": tokens[row // T, row % T],
            "rows/sequence": (row // T).astype(np.uint32),
            "rows/position": (row % T).astype(np.uint16),
            "stats/output": output_V.numpy()[None],
            "stats/attn.z/00/sum": kept_HNE.sum(1)[None],
            "stats/attn.z/00/outer": (kept_HNE.swapaxes(1, 2) @ kept_HNE)[None],
        }
        writer.write(shard, arrays, {})
    put_manifest(root, plan, open_cache(root).files_by_shard())


@pytest.fixture
def fit(planted_store: Path, tmp_path: Path) -> Callable[..., LensRecord]:
    """`fit("name", zero=..., stop=..., every=..., store=..., SETTINGS)` into `tmp_path / "name"`: 20 steps of 128 rows."""

    def call(
        name: str,
        *,
        store: Path = planted_store,
        zero: int | None = 0,
        deepspeed: Path | None = None,
        every: int = 10**6,
        stop: int = 10**6,
        **settings: Any,
    ) -> LensRecord:
        given = {"steps": 20, "batch_rows": 128, "eval_rows": 512, "start": "mean-output", **settings}
        request = FitRequest(
            store=store,
            lenses=tmp_path / name,
            settings=FitSettings(**given),
            zero=zero,
            deepspeed=deepspeed,
            device="cpu",
            checkpoint_every=every,
        )
        asked = Stop(stop)
        return fit_lenses(request, report=asked.report, should_stop=asked).record

    return call


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.fixture
def largest() -> Largest:
    """Watches the tensors that are made inside `with largest:`."""
    return Largest()
