"""The demo model run through TransformerLens without alens, and small requests and caches."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from alens import CacheRequest, demo, write_cache
from alens.store.cache_reader import open_cache
from alens.store.schema import CacheSettings

Float = npt.NDArray[np.float32]

SMALL = CacheSettings(
    seq_len=32, rows_per_shard=128, max_rows=768, batch_size=2, top_k=4, tail_samples=4, layers=(0, 2)
)
"""6 shards of 2 batches each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """What TransformerLens computes for each token of `demo_cache`, in the order of tokens.npy."""

    z_LNHE: Float
    results_LNHD: Float
    """Only for the first 1024 tokens."""
    logits_NV: Float

    def probs(self, places: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        logits = torch.from_numpy(self.logits_NV[places]).double()
        return logits.softmax(dim=-1).numpy()


@pytest.fixture(scope="session")
def bridge() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens import TransformerBridge

        bridge: Any = TransformerBridge.boot_transformers(str(demo.MODEL), device="cpu", dtype=torch.float32)
    bridge.eval()
    return bridge


@pytest.fixture(scope="session")
def truth(bridge: Any, demo_cache: Path) -> Truth:
    tokens_BT = torch.from_numpy(np.load(demo_cache / "tokens.npy").astype(np.int64))
    hooks = [f"blocks.{layer}.attn.hook_{what}" for layer in range(4) for what in ("z", "result")]
    bridge.set_use_attn_result(True)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits, cached = bridge.run_with_cache(tokens_BT[:16], names_filter=lambda name: name in hooks)
        results = [cached[f"blocks.{layer}.attn.hook_result"].flatten(0, 1).numpy() for layer in range(4)]
        bridge.set_use_attn_result(False)
        parts: list[list[torch.Tensor]] = [[] for _ in range(4)]
        all_logits = []
        for start in range(0, len(tokens_BT), 16):
            logits, cached = bridge.run_with_cache(
                tokens_BT[start : start + 16], names_filter=lambda name: name in hooks
            )
            all_logits.append(logits.flatten(0, 1))
            for layer in range(4):
                parts[layer].append(cached[f"blocks.{layer}.attn.hook_z"].flatten(0, 1))
    return Truth(
        z_LNHE=torch.stack([torch.cat(part) for part in parts]).numpy(),
        results_LNHD=np.stack(results),
        logits_NV=torch.cat(all_logits).numpy(),
    )


@pytest.fixture(scope="session")
def places(demo_cache: Path) -> npt.NDArray[np.int64]:
    """For each row of `demo_cache`, its place in `truth`."""
    cache = open_cache(demo_cache)
    sequence = cache.read("rows/sequence", slice(None)).astype(np.int64)
    return sequence * 64 + cache.read("rows/position", slice(None))


@pytest.fixture(scope="session")
def small_request() -> Callable[..., CacheRequest]:
    """A request for the demo with SMALL settings, changed by `settings`."""

    def make(store: Path, *, settings: dict[str, Any] | None = None, **changes: Any) -> CacheRequest:
        return CacheRequest(
            **{
                "model": "demo",
                "corpus": "demo",
                "store": store,
                "settings": dataclasses.replace(SMALL, **(settings or {})),
                "device": "cpu",
                **changes,
            }
        )

    return make


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory: pytest.TempPathFactory, small_request: Callable[..., CacheRequest]) -> Path:
    """A sealed cache with SMALL settings, written in one run. Shared: copy it before writing."""
    store = tmp_path_factory.mktemp("small") / "small-cache"
    write_cache(small_request(store))
    return store
