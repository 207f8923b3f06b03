"""`documents.npy`: the document of each token, as a part of a cache like any other."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens import CacheRequest, open_cache, write_cache
from alens.errors import DamageError
from alens.store import document
from alens.store.repair import repair
from alens.store.schema import Plan
from alens.store.verify import verify_cache
from alens.text.corpus import CorpusOptions

from ..damage import cut, flip

Copy = Callable[[Path], Path]


def test_a_cache_says_in_which_document_each_sequence_begins(document_cache: Path) -> None:
    cache = open_cache(document_cache)
    assert cache.documents is not None and cache.token_documents is not None
    assert (cache.documents.shape, cache.documents.dtype) == ((96,), np.int64)
    assert cache.token_documents.shape == cache.tokens.shape
    # Each document of the demo is opened by an end-of-text.
    opens = np.diff(cache.token_documents.astype(np.int64), axis=1) != 0
    assert opens.any()
    assert ((cache.tokens[:, 1:] == 0) == opens).all()


def test_without_a_document_column_documents_are_not_known(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    assert cache.documents is None and cache.token_documents is None
    assert len(cache.plan.shards_of_held_out_documents) == 0
    assert not (demo_cache / "documents.npy").exists()


def test_the_last_shards_are_of_documents_that_stand_in_no_other(document_cache: Path) -> None:
    cache = open_cache(document_cache)
    assert cache.token_documents is not None
    assert list(cache.plan.shards_of_held_out_documents) == [5]
    held_out, others = (
        {int(document) for shard in shards for document in _documents(cache, shard)}
        for shards in ([5], range(5))
    )
    assert len(held_out) == cache.plan.tokens.documents_held_out >= 2
    assert len(held_out | others) == cache.plan.tokens.documents_taken
    assert not held_out & others


def _documents(cache: Any, shard: int) -> Any:
    return np.unique(cache.token_documents[np.unique(cache.read_shard("rows/sequence", shard))])


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_damage_is_refused_named_and_mended(
    document_cache: Path, copy_of: Copy, harm: Callable[[Path], None]
) -> None:
    store = copy_of(document_cache)
    path = store / "documents.npy"
    whole = path.read_bytes()
    harm(path)
    with pytest.raises(DamageError, match=r"documents\.npy is missing or altered"):
        _ = open_cache(store).documents
    (finding,) = verify_cache(store).findings
    assert (finding.path, finding.kind) == ("documents.npy", "missing" if harm is Path.unlink else "damaged")
    assert list(repair(store, [finding])) == ([] if harm is Path.unlink else ["documents.npy"])
    plan = open_cache(store).plan
    request = CacheRequest(
        model="demo",
        corpus="demo",
        store=store,
        settings=plan.settings,
        options=CorpusOptions(document_column="document"),
        device="cpu",
    )
    assert write_cache(request).shards_written == 0
    assert path.read_bytes() == whole
    assert verify_cache(store).whole


def test_a_plan_of_before_keeps_its_identity(demo_cache: Path) -> None:
    """Without documents and `max_rows`, a plan is the same as before these fields were added."""
    plan = open_cache(demo_cache).plan
    plan = dataclasses.replace(plan, tokens=dataclasses.replace(plan.tokens, selection=None))
    body = json.loads(plan.to_json())
    for name in ("documents_sha256", "documents", "documents_taken", "documents_held_out", "held_out_sequences", "selection"):  # fmt: skip
        assert body["tokens"].pop(name) is None
    del body["sha256"]
    assert Plan.from_json(document.encode(body), "plan.json") == plan
