"""The demo model, a cache with the residual stream, and publications made here with the key names of other programs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alens import CacheRequest, write_cache
from alens.model.models import LoadedModel
from alens.store.schema import CacheSettings

Publish = Callable[..., Path]


@pytest.fixture(scope="session")
def stream_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards with the residual stream. Shared: never write to it."""
    store = tmp_path_factory.mktemp("stream") / "cache"
    settings = CacheSettings(
        seq_len=32, rows_per_shard=256, max_rows=512, batch_size=8, top_k=8, tail_samples=8,
        exact_teacher=True, layers=(0, 2), sites=("resid_post",),
    )  # fmt: skip
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu"))
    return store


@pytest.fixture
def checkpoint(model: LoadedModel, tmp_path: Path) -> Publish:
    """`checkpoint(name, prefix, **more)`: a checkpoint of AttentionLens, with keys `{prefix}linears.{head}.weight`."""
    record = model.source.record
    random = torch.Generator().manual_seed(3)

    def make(
        name: str = "attnlens-layer-2-epoch=00-step=10.ckpt",
        prefix: str = "attn_lens.",
        heads: int = record.n_heads,
        shape: tuple[int, int] = (record.d_vocab, record.d_model),
        more: dict[str, torch.Tensor] | None = None,
        legacy: bool = False,
    ) -> Path:
        state = dict(more or {})
        for head in range(heads):
            state[f"{prefix}linears.{head}.weight"] = torch.randn(shape, generator=random)
            state[f"{prefix}linears.{head}.bias"] = torch.randn(shape[0], generator=random)
        body = {"epoch": 0, "pytorch-lightning_version": "2.0.6", "state_dict": state}
        torch.save(body, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        return tmp_path / name

    return make


@pytest.fixture
def tuned(model: LoadedModel, tmp_path: Path) -> Publish:
    """`tuned(**config)`: a directory as tuned-lens saves it, with small random translators."""
    record = model.source.record
    random = torch.Generator().manual_seed(4)

    def make(bias: bool = True, width: int = record.d_model, **config: object) -> Path:
        folder = tmp_path / "tuned"
        folder.mkdir()
        said = {
            "base_model_name_or_path": "demo", "d_model": record.d_model, "num_hidden_layers": record.n_layers,
            "bias": bias, "base_model_revision": None, "unembed_hash": "0" * 64, "lens_type": "linear_tuned_lens",
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps({**said, **config}))
        state = {}
        for index in range(record.n_layers):
            state[f"{index}.weight"] = torch.randn(width, width, generator=random) * 0.02
            if bias:
                state[f"{index}.bias"] = torch.randn(width, generator=random) * 0.02
        torch.save(state, folder / "params.pt")
        return folder

    return make
