"""Documents with a right hash and impossible contents: one line with file, field, value and what was expected."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.errors import DamageError
from alens.store.cache_reader import open_cache
from alens.store.status import cache_status
from alens.store.verify import verify_cache

from .. import documents

Copy = Callable[[Path], Path]

PLANS: list[tuple[str, str, Any, str]] = [
    ("tokens", "sequences", "128", 'tokens.sequences is "128": input should be a valid integer'),
    ("tokens", "sequences", 0, "tokens.sequences is 0: input should be greater than or equal to 1"),
    ("tokens", "sequences", 13, "13 sequences are not whole shards"),
    ("tokens", "sequences_left_out", -1, "tokens.sequences_left_out is -1: input should be greater than or equal to 0"),
    ("tokens", "end_of_text", 50, "end_of_text is 50, of 50 tokens"),
    ("tokens", "surprise", 1, "it has the unknown field tokens.surprise"),
    ("model", "d_vocab", 0, "model.d_vocab is 0: input should be greater than or equal to 1"),
    ("model", "n_heads", None, "model.n_heads is null: input should be a valid integer"),
    ("model", "n_layers", 2.5, "model.n_layers is 2.5: input should be a valid integer"),
    ("model", "n_layers", True, "model.n_layers is true: input should be a valid integer"),
    ("model", "id", ["tiny"], r'model.id is \["tiny"\]: input should be a valid string'),
    ("settings", "keep_bits", 2.5, "settings.keep_bits is 2.5: input should be a valid integer"),
    ("settings", "keep_bits", 12, "keep_bits is 12: float16 has 10 mantissa bits"),
    ("settings", "exact_teacher", "yes", 'settings.exact_teacher is "yes": input should be a valid boolean'),
    ("settings", "layers", ["../../x"], r'settings.layers.0 is "../../x": input should be a valid integer'),
    ("settings", "layers", [0, 0], "layers are 0,0, of a model with 1"),
    ("settings", "layers", [1], "layers are 1, of a model with 1"),
    ("settings", "layers", [], "layers are , of a model with 1"),
    ("settings", "top_k", 51, "top_k is 51, of 50 tokens"),
    ("settings", "seed", -1, "settings.seed is -1: input should be greater than or equal to 0"),
    ("corpus", "files", [{"name": "x", "bytes": -5, "sha256": None}], "corpus.files.0.bytes is -5: input should be"),
    ("created", "host", 5, "created.host is 5: input should be a valid string"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "field", "value", "message"), PLANS)
def test_a_plan_that_cannot_be_names_the_field(
    sealed_tiny: Path, copy_of: Copy, part: str, field: str, value: Any, message: str
) -> None:
    store = copy_of(sealed_tiny)
    documents.edit(store / "plan.json", lambda body: body[part].update({field: value}))
    with pytest.raises(
        DamageError, match=rf"store/plan\.json is not whole \({message}.*\): see `alens verify`"
    ) as caught:
        open_cache(store)
    assert len(str(caught.value).splitlines()) == 1


def test_a_plan_that_lacks_a_field_says_which(sealed_tiny: Path, copy_of: Copy) -> None:
    store = copy_of(sealed_tiny)
    documents.edit(store / "plan.json", lambda body: body["model"].pop("d_head"))
    with pytest.raises(DamageError, match=r"is not whole \(it lacks model\.d_head\)"):
        open_cache(store)


@pytest.mark.parametrize(
    "files",
    [None, [], {"rows/token/c.1": None}, {"rows/token/c.1": {"bytes": "5", "sha256": "0"}}, {"../x": {}}],
)
def test_a_record_whose_files_cannot_be_is_an_absent_one(
    sealed_tiny: Path, copy_of: Copy, files: Any
) -> None:
    store = copy_of(sealed_tiny)
    documents.edit(store / "commits/000001.json", lambda body: body.update(files=files))
    with pytest.raises(DamageError, match=r"shard 1 of .* is not committed"):
        open_cache(store).read_shard("rows/token", 1)


RECORDS: list[tuple[str, Any, str]] = [
    ("worker", "abc", "worker is 'abc': input should be I/N, with I below N"),
    ("worker", "3/2", "worker is '3/2': input should be I/N, with I below N"),
    ("worker", 1, "worker is 1: input should be a valid string"),
    ("finished", float("nan"), "finished is NaN: input should be a finite number"),
    ("finished", 1e300, r"finished is 1e\+300: input should be less than"),
    ("rows", "5", 'rows is "5": input should be a valid integer'),
    ("seconds", None, "seconds is null: input should be a valid number"),
    (
        "files",
        {"../../x": {"bytes": 1, "sha256": "0"}},
        "files has '../../x', which is not a path in arrays.zarr",
    ),
    (
        "files",
        {"rows/token/c.1": {"bytes": -1, "sha256": "0"}},
        "bytes is -1: input should be greater than or equal to 0",
    ),
]


@pytest.mark.parametrize(("field", "value", "message"), RECORDS)
def test_a_record_that_cannot_be_is_an_absent_one_and_the_log_says_why(
    sealed_tiny: Path, copy_of: Copy, caplog: pytest.LogCaptureFixture, field: str, value: Any, message: str
) -> None:
    store = copy_of(sealed_tiny)
    (store / "MANIFEST.json").unlink()
    documents.edit(store / "commits/000001.json", lambda body: body.update({field: value}))
    cache = open_cache(store)
    assert cache_status(cache).shards_done == 2 and cache.shards == (0, 2)
    (line,) = caplog.messages
    assert re.search(
        rf"commits/000001\.json is not whole \(.*{message}.*\): its shard counts as not committed", line
    )
    collected = {finding.path: finding.what for finding in verify_cache(store).findings}
    assert re.search(message, collected["commits/000001.json"])


def test_old_plans_without_later_fields_are_read(sealed_tiny: Path, copy_of: Copy) -> None:
    store = copy_of(sealed_tiny)
    documents.edit(store / "plan.json", lambda body: body["settings"].pop("sites"))
    assert open_cache(store).plan == open_cache(sealed_tiny).plan
