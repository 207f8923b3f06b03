"""Lenses of a cache of moments alone: made in closed form, not judged there, and judged on a cache with rows."""

import dataclasses
import json
from pathlib import Path

import pytest

from alens import CacheRequest, evaluate, load_lenses, open_cache, write_cache
from alens.store.schema import CacheSettings
from alens.text.corpus import CorpusOptions

from ..conftest import DEMO_SETTINGS, Run

SETTINGS = dataclasses.replace(DEMO_SETTINGS, exact_teacher=False, moments_only=True, layers=(0, 3))


def cached(store: Path, settings: CacheSettings, **options: str) -> Path:
    write_cache(
        CacheRequest(
            model="demo",
            corpus="demo",
            store=store,
            settings=settings,
            options=CorpusOptions(**options),
            device="cpu",
        )
    )
    return store


def test_lenses_come_from_sums_and_are_judged_elsewhere(
    document_cache: Path, tmp_path: Path, run_alens: Run
) -> None:
    store = cached(tmp_path / "moments", SETTINGS, document_column="document")
    lenses = tmp_path / "lenses"
    made = run_alens("fit", store, lenses, "--lens", "regression", "--layers", 3)
    assert made.code == 0, made.stderr
    assert made.stdout == (
        f"6 lenses in {lenses}, not judged: {store} holds no rows; `alens eval` judges them on a cache that does\n"
    )
    body = json.loads((lenses / "lens.json").read_text())
    (apart,) = open_cache(store).plan.shards_of_held_out_documents
    assert body["held_out"] == {} and body["mean_output_kl"] is None
    assert body["cache"]["held_out_shards"] == [apart] and apart not in body["cache"]["train_shards"]
    assert body["fit"]["rows_seen"] == 5 * 16 * 63
    assert load_lenses(lenses).mean_z(3).shape == (6, 32)
    # The same text with rows: its held-out documents are those that the moments left out.
    judged = evaluate(load_lenses(lenses), open_cache(document_cache))
    assert judged.trained_on == "no" and judged.shards == (apart,)
    assert min(head.kl for head in judged.lens[3]) < 0.95 * judged.mean_output.kl
    assert run_alens("info", lenses).code == run_alens("verify", store).code == 0


def test_a_single_shard_is_enough(tmp_path: Path, run_alens: Run) -> None:
    one = dataclasses.replace(SETTINGS, max_rows=1024, layers=(3,))
    store = cached(tmp_path / "moments", one)
    assert run_alens("fit", store, tmp_path / "lenses", "--lens", "regression").code == 0
    body = json.loads((tmp_path / "lenses/lens.json").read_text())
    assert (body["cache"]["train_shards"], body["cache"]["held_out_shards"]) == ([0], [])
    again = run_alens("fit", store, tmp_path / "lenses", "--lens", "regression")
    assert again.code == 0 and "is finished: nothing to do" in again.stderr


@pytest.mark.parametrize("lens", ["linear", "translator"])
def test_a_design_that_is_trained_needs_rows(tmp_path: Path, run_alens: Run, lens: str) -> None:
    one = dataclasses.replace(SETTINGS, max_rows=1024, layers=(3,))
    store = cached(tmp_path / "moments", one)
    refused = run_alens("fit", store, tmp_path / "lenses", "--lens", lens)
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr.endswith(f"{store} was cached with --moments-only: take a cache with rows\n")
