"""Documents that give their own hashes but do not fit each other or the arrays, and caches without a plan."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alens.errors import RequestError
from alens.store import document, durable
from alens.store.cache_reader import open_cache
from alens.store.verify import verify_cache
from alens.store.writer import ShardWriter

from .whole_caches import Z, edit, only, short

# Edits that give right hashes


@pytest.mark.parametrize(
    ("array", "change"),
    [
        ("sites/attn.z/00", {"shape": [32, 2, 4]}),
        ("sites/attn.z/00", {"data_type": "bfloat16"}),
        ("sites/attn.z/00", {"fill_value": 0.0}),
        ("targets/logsumexp", {"data_type": "int32", "fill_value": 0}),
        ("model/W_U", {"dimension_names": ["token", "d_model"]}),
        ("stats/output", {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]}),
        ("rows", {"node_type": "array"}),
        ("", {"attributes": {"alens_format": 1, "plan": "0" * 64}}),
    ],
)  # fmt: skip
def test_metadata_that_were_edited_with_their_hashes_are_named(
    whole_store: Path, array: str, change: dict[str, Any]
) -> None:
    key = f"{array}/zarr.json".lstrip("/")
    file, record = whole_store / "arrays.zarr" / key, whole_store / "commits/model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    files = document.decode(record.read_bytes(), "it")["files"]
    edit(record, files={**files, key: {"bytes": file.stat().st_size, "sha256": durable.sha256_of(file)}})
    finding = only(whole_store)
    assert (finding.kind, finding.path) == ("damaged", f"arrays.zarr/{key}")
    assert finding.what == "does not describe the array that the plan makes"
    assert finding.queue == ("commits/model.json",)


def test_metadata_in_another_form_are_the_same(whole_store: Path) -> None:
    """Meanings are compared: another zarr may order or space its JSON in another way."""
    key = "sites/attn.z/00/zarr.json"
    file, record = whole_store / "arrays.zarr" / key, whole_store / "commits/model.json"
    file.write_text(json.dumps(json.loads(file.read_text()), sort_keys=True))
    files = document.decode(record.read_bytes(), "it")["files"]
    edit(record, files={**files, key: {"bytes": file.stat().st_size, "sha256": durable.sha256_of(file)}})
    assert verify_cache(whole_store).whole


@pytest.mark.parametrize("name", ["commits/model.json", "commits/000001.json"])
@pytest.mark.parametrize("change", ["lacks", "names more", "no object", "no size", "leads out"])
def test_a_record_names_exactly_the_files_of_the_plan(whole_store: Path, name: str, change: str) -> None:
    record = whole_store / name
    files = document.decode(record.read_bytes(), "it")["files"]
    first = next(iter(files))
    edited: dict[str, Any] = {
        "lacks": {k: v for k, v in files.items() if k != first},
        "names more": {**files, "sites/attn.z/09/c.1.0.0": files[first]},
        "no object": list(files),
        "no size": {**files, first: {"sha256": "0" * 64}},
        "leads out": {**files, "../tokens.npy": files[first]},
    }
    edit(record, files=edited[change])
    assert (only(whole_store).kind, only(whole_store).path) == ("damaged", name)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("commits/000001.json", {"plan": "0" * 64}, "is of another plan"),
        ("commits/000001.json", {"shard": 2}, "is the record of another shard"),
        ("commits/model.json", {"plan": "0" * 64}, "is of another plan"),
        ("MANIFEST.json", {"plan": "0" * 64}, "is of another plan"),
        ("MANIFEST.json", {"shards": 2}, "does not say what the plan says of shards and rows"),
        ("MANIFEST.json", {"rows": 5}, "does not say what the plan says of shards and rows"),
        ("MANIFEST.json", {"fingerprint": "0" * 64}, "its fingerprint is not that of the records"),
    ],
)
def test_documents_that_do_not_fit_each_other_are_named(
    whole_store: Path, name: str, changes: dict[str, Any], says: str
) -> None:
    edit(whole_store / name, **changes)
    finding = only(whole_store)
    assert (finding.kind, finding.path, finding.what) == ("damaged", name, says)


def test_a_shard_that_was_replaced_with_its_record_breaks_the_seal(whole_store: Path, values: Any) -> None:
    """Which shard it was cannot be told from bytes: `--deep` compares numbers."""
    plan = open_cache(whole_store).plan
    ShardWriter(whole_store, plan).write(1, values(plan, 5), {"note": "other numbers"})
    assert (only(whole_store).path, only(whole_store).what) == (
        "MANIFEST.json",
        "its fingerprint is not that of the records",
    )


def test_a_plan_of_another_format_is_refused(whole_store: Path) -> None:
    edit(whole_store / "plan.json", format=2)
    with pytest.raises(RequestError, match="has format 2"):
        verify_cache(whole_store)


# Without a plan


@pytest.mark.parametrize("gone", [True, False])
def test_without_a_plan_the_rest_is_still_checked(every: Path, gone: bool) -> None:
    plan = every / "plan.json"
    plan.unlink() if gone else plan.write_bytes(plan.read_bytes()[:-9])
    kind = "missing" if gone else "damaged"
    assert short(verify_cache(every)) == [(kind, "plan.json")]
    for name in (
        f"{Z}/c.1.0.0",
        "arrays.zarr/model/b_U/c.0",
        "arrays.zarr/rows/zarr.json",
        "commits/000002.json",
    ):
        path = every / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 8]))
        assert short(verify_cache(every)) == [(kind, "plan.json"), ("damaged", name)]
        path.write_bytes(whole)
    edit(every / "commits/000001.json", plan="0" * 64)
    assert ("damaged", "commits/000001.json") in short(verify_cache(every))
    (every / "commits/000001.json").unlink()
    assert ("missing", "commits/000001.json") in short(verify_cache(every))


def test_without_plan_and_records_nothing_of_the_format_is_called_foreign(whole_store: Path) -> None:
    (whole_store / "plan.json").write_bytes(b"")
    for record in (whole_store / "commits").iterdir():
        record.write_bytes(b"{}")
    (whole_store / "MANIFEST.json").write_bytes(b"")
    verdict = verify_cache(whole_store)
    assert {f.kind for f in verdict.findings} == {"damaged"}
    assert {f.path for f in verdict.findings} == {
        "plan.json", "MANIFEST.json", "commits/model.json", *(f"commits/00000{i}.json" for i in range(3)),
    }  # fmt: skip
    assert verdict.shards_missing is None


def test_what_a_job_left_that_died_before_its_plan_is_unfinished(whole_store: Path) -> None:
    for name in ("plan.json", "MANIFEST.json", *(f"commits/00000{i}.json" for i in range(3))):
        (whole_store / name).unlink()
    for file in (whole_store / "arrays.zarr").rglob("c.*"):
        if "model" not in file.parts:
            file.unlink()
    (whole_store / "plan.claim").write_text("{}")
    assert short(verify_cache(whole_store)) == [("unfinished", "plan.json"), ("unfinished", "plan.claim")]
    (whole_store / "commits/model.json").unlink()
    assert verify_cache(whole_store).whole
    (whole_store / "commits/000001.json").write_bytes(b"cut")  # no job writes a record before the plan
    assert short(verify_cache(whole_store))[:2] == [
        ("missing", "plan.json"),
        ("missing", "commits/model.json"),
    ]


@pytest.mark.parametrize("make", ["nothing", "empty", "a file", "lenses"])
def test_what_is_no_cache_is_refused(tmp_path: Path, make: str) -> None:
    place = tmp_path / "place"
    if make == "a file":
        place.touch()
    elif make != "nothing":
        place.mkdir()
    if make == "lenses":
        (place / "lens.json").write_text("{}")
    why = ", it holds lenses" if make == "lenses" else " (it has no plan.json)"
    with pytest.raises(RequestError, match=re.escape(f"is not a cache{why}: give a directory that")):
        verify_cache(place)
