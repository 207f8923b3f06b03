"""Caches of a stranger with right hashes and false claims: work and memory depend on what is on disk, not on claims."""

import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from numcodecs.blosc import Blosc

from alens.errors import DamageError
from alens.store import document
from alens.store.cache_reader import open_cache
from alens.store.verify import verify_cache

from .. import documents
from ..fuzz import forge

Copy = Callable[[Path], Path]
Run = Callable[..., Any]

QUICK_S = 20.0
"""Refusing takes a moment, even on a busy machine; following the claims here would take hours."""


@pytest.fixture
def stranger(sealed_tiny: Path, copy_of: Copy) -> Callable[..., Path]:
    """`stranger(change)`: the tiny cache with a changed plan, and every hash that leads to it made right."""

    def make(change: Callable[[dict[str, Any]], object]) -> Path:
        store = copy_of(sealed_tiny)
        cache = store.rename(store.with_name("cache"))
        documents.edit(cache / "plan.json", change)
        forge.mend(cache.parent, cache / "plan.json")
        return cache

    return make


def forged(store: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the metadata of an array, and make its hash in the record right."""
    path = store / "arrays.zarr" / name / "zarr.json"
    body = json.loads(path.read_bytes())
    change(body)
    path.write_text(json.dumps(body))
    key = f"{name}/zarr.json"
    recorded = {"bytes": path.stat().st_size, "sha256": forge.sha256(path.read_bytes())}
    documents.edit(store / "commits/model.json", lambda body: body["files"].update({key: recorded}))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("tokens", "sequences", 16 * 10**9),
        ("model", "n_layers", 5 * 10**6),
        ("settings", "rows_per_shard", 2**60),
    ],
)
def test_numbers_that_no_cache_has_are_one_line_at_once(
    stranger: Callable[..., Path], run_alens: Run, part: str, field: str, value: int
) -> None:
    store, since = stranger(lambda body: body[part].update({field: value})), time.monotonic()
    told = run_alens("info", store)
    assert (told.code, len(told.stderr.splitlines())) == (1, 1)
    assert f"plan.json is not whole ({part}.{field} is {value}: input should be less than" in told.stderr
    verdict = verify_cache(store)
    assert f"{part}.{field} is {value}" in verdict.findings[0].what
    assert time.monotonic() - since < QUICK_S


def test_more_layers_than_arrays_are_one_line(stranger: Callable[..., Path]) -> None:
    store = stranger(lambda body: body["model"].update(n_layers=9_000))
    with pytest.raises(DamageError, match=r"plan\.json names 9,000 layers, and .*attn\.z holds arrays of 1"):
        open_cache(store)


def test_a_plan_of_a_billion_shards_costs_what_is_there(
    stranger: Callable[..., Path], run_alens: Run
) -> None:
    """A true plan may have a million shards, of which three are written."""
    store = stranger(lambda body: body["tokens"].update(sequences=4 * 10**9))
    (store / "MANIFEST.json").unlink()
    since = time.monotonic()
    told = json.loads(run_alens("info", store, "--json").stdout)
    assert told["state"] == "3 of 1000000000 shards committed"
    assert told["missing_shards"] == "3-999999999"
    assert run_alens("info", store, "--array", 5).stdout == "0-4\n"
    assert open_cache(store).shards == (0, 1, 2)
    assert verify_cache(store).shards_missing == 10**9 - 3
    assert time.monotonic() - since < QUICK_S


def test_a_manifest_that_claims_records_which_are_not_there(
    stranger: Callable[..., Path], run_alens: Run
) -> None:
    store = stranger(lambda body: body["tokens"].update(sequences=4 * 10**9))
    documents.edit(store / "MANIFEST.json", lambda body: body.update(shards=10**9, rows=32 * 10**9))
    since = time.monotonic()
    told = run_alens("info", store)
    assert told.code == 1 and "says that all 1,000,000,000 shards are committed" in told.stderr
    lost = {
        finding.path: finding.what for finding in verify_cache(store).findings if finding.kind == "missing"
    }
    assert (
        "as are 4 to 999999999" in lost["commits/000003.json"] and len(lost) == 2
    )  # and the tokens, never written
    assert time.monotonic() - since < QUICK_S


CODECS = [
    lambda codecs: codecs[0]["configuration"]["codecs"].append(
        {"name": "gzip", "configuration": {"level": 5}}
    ),
    lambda codecs: codecs[0]["configuration"]["codecs"].pop(),
    lambda codecs: codecs[0]["configuration"].update(chunk_shape=[10**11]),
    lambda codecs: codecs[0]["configuration"]["index_codecs"].pop(),
]


@pytest.mark.parametrize(
    "change", CODECS, ids=["gzip", "no checksum", "large chunk", "index without checksum"]
)
@pytest.mark.parametrize("name", ["rows/token", "model/b_U"])
def test_readers_compare_metadata_with_the_plan(
    sealed_tiny: Path, copy_of: Copy, name: str, change: Callable[[list[Any]], object]
) -> None:
    store = copy_of(sealed_tiny)
    forged(store, name, lambda body: change(body["codecs"]))
    cache = open_cache(store)
    with pytest.raises(
        DamageError, match=rf"{name}/zarr\.json does not describe the array that the plan makes"
    ):
        cache.weights("b_U") if name.startswith("model") else cache.read(name, slice(None))
    assert "does not describe the array that the plan makes" in [
        finding.what for finding in verify_cache(store).findings
    ]


def test_a_file_with_fewer_bytes_than_its_array_takes_is_not_read(stranger: Callable[..., Path]) -> None:
    store = stranger(lambda body: body["model"].update(d_head=2**20, d_model=2**24))
    cache = open_cache(store)
    for read in (lambda: cache.weights("W_O"), lambda: cache.z(0, np.array([1, 40]))):
        with pytest.raises(
            DamageError, match=r"has [\d,]+ bytes by its record, and what the plan says it holds takes"
        ):
            read()


def test_a_document_of_gigabytes_is_not_read(sealed_tiny: Path, copy_of: Copy) -> None:
    store = copy_of(sealed_tiny)
    with (store / "plan.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(
        DamageError,
        match=rf"plan\.json has 1,099,511,627,776 bytes, more than the {document.MOST_BYTES:,} allowed",
    ):
        open_cache(store)
    assert "is too large to be a document" in [finding.what for finding in verify_cache(store).findings]


def test_a_chunk_that_claims_more_than_its_rows_is_not_decompressed(
    rounded_tiny: Path, copy_of: Copy
) -> None:
    """200 million zeros in a chunk of some kilobytes, with right checksums and hashes."""
    store, key = copy_of(rounded_tiny), "sites/resid_post/00/c.1.0"
    chunk = with_crc(bytes(Blosc(cname="zstd", clevel=1).encode(np.zeros(200_000_000, np.uint8))))
    file = store / "arrays.zarr" / key
    file.write_bytes(chunk + with_crc(struct.pack("<QQ", 0, len(chunk))))
    recorded = {"bytes": file.stat().st_size, "sha256": forge.sha256(file.read_bytes())}
    documents.edit(store / "commits/000001.json", lambda body: body["files"].update({key: recorded}))
    tracemalloc.start()
    with pytest.raises(DamageError, match=r"c\.1\.0 has a chunk that claims 200,000,000 bytes, of \d"):
        open_cache(store).read_shard("sites/resid_post/00", 1)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def with_crc(content: bytes) -> bytes:
    return content + struct.pack("<I", google_crc32c.value(content))
