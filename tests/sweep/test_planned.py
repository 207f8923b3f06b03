import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from alens.errors import DamageError, RequestError
from alens.job.worker import Worker
from alens.store.cache_reader import open_cache
from alens.sweep import sweep_json
from alens.sweep.many_fits import run_sweep
from alens.sweep.planned import Planned, resolve, share
from alens.sweep.request import SweepRequest


def resolved(request: SweepRequest) -> list[Planned]:
    return resolve(request, open_cache(request.store))


def test_every_bad_variant_is_named_before_anything_is_written(sweep: Any) -> None:
    request = sweep(
        lr=[0.01],
        variant=[
            {"name": "good"},
            {"name": "reverse", "objective": "reverse-kl", "teacher": "compressed"},
            {"name": "wide", "lens": "low-rank", "lens_options": {"rank": 9999}},
            {"name": "odd", "lens_options": {"colour": 1}},
            {"name": "deep", "layers": [9]},
            {"name": "many", "top_k": 999},
            {"name": "site", "site": "resid_post"},
        ],
    )
    with pytest.raises(RequestError) as caught:
        run_sweep(request)
    said = str(caught.value)
    assert said.startswith("6 of 8 variants cannot be fitted, and none was: ")
    for words in (
        "reverse: reverse-kl cannot be fitted to the compressed teacher",
        "wide: rank is 9999",
        "odd: lens linear has no option 'colour'",
        "deep: layer 9 is not in",
        "many: top_k is 999",
        "site: ",
    ):
        assert words in said
    assert "good" not in said and not request.out.exists()


def test_an_objective_of_the_exact_teacher_is_refused_on_a_cache_without(
    sweep: Any, planted_without_exact: Path
) -> None:
    request = sweep(
        {"layers": [0]}, objective=["forward-kl", "reverse-kl"], request={"store": planted_without_exact}
    )
    with pytest.raises(RequestError, match=r"1 of 2 .* objective=reverse-kl: .* holds no exact teacher"):
        resolved(request)


@pytest.fixture(scope="session")
def planted_without_exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from alens import CacheRequest, write_cache
    from alens.store.schema import CacheSettings

    store = tmp_path_factory.mktemp("plain") / "cache"
    settings = CacheSettings(
        seq_len=32, rows_per_shard=512, max_rows=1024, top_k=4, tail_samples=4, layers=(0,)
    )
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu"))
    return store


def test_a_cache_that_is_not_sealed_is_refused(sweep: Any, demo_cache: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(demo_cache, tmp_path / "copy"))
    (store / "MANIFEST.json").unlink()
    with pytest.raises(RequestError, match="is not sealed"):
        resolved(sweep(request={"store": store}))


def test_fits_share_a_read_when_they_read_the_same_rows_in_the_same_order(sweep: Any) -> None:
    alike: list[dict[str, Any]] = [
        {"lr": 0.5},
        {"heads": [2, 0]},
        {"layers": [0, 1]},
        {"teacher": "exact"},
        {"top_k": 4},
        {"steps": 3},
        {"lens": "low-rank"},
    ]
    apart: list[dict[str, Any]] = [
        {"seed": 1},
        {"batch_rows": 64},
        {"rows": 2048},
        {"min_position": 5},
        {"objective": "last-position"},
    ]
    reads = [fit.shared_read for fit in resolved(sweep(variant=[{}, *alike, *apart]))]
    assert set(reads[: len(alike) + 1]) == {reads[0]}
    assert len(set(reads[len(alike) :])) == 1 + len(apart)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_workers_take_every_variant_once_and_leave_reads_whole(sweep: Any, count: int) -> None:
    planned = resolved(sweep(seed=[0, 1], lr=[0.01, 0.02, 0.03]))
    planned = [planned[place] for place in (0, 3, 1, 4, 2, 5)]
    parts = [share(planned, Worker(index=index, count=count)) for index in range(count)]
    assert sorted(fit.variant.name for part in parts for fit in part) == sorted(
        fit.variant.name for fit in planned
    )
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    if count == 2:
        assert [len({fit.shared_read for fit in part}) for part in parts] == [1, 1]


def test_another_sweep_in_the_same_directory_is_refused_and_told_apart(sweep: Any) -> None:
    request = sweep(lr=[0.01, 0.02])
    cache = open_cache(request.store)
    sweep_json.put(request.out, sweep_json.content(request, cache))
    sweep_json.check(request.out, sweep_json.content(sweep(lr=[0.01, 0.02]), cache))
    with pytest.raises(
        RequestError, match=r"it has no variant lr=0.03; its variant lr=0.02 is not asked for"
    ):
        sweep_json.check(request.out, sweep_json.content(sweep(lr=[0.01, 0.03]), cache))
    with pytest.raises(RequestError, match=r"seed of lr=0.01 is 4 .begun: 0."):
        sweep_json.check(request.out, sweep_json.content(sweep({"seed": 4}, lr=[0.01, 0.02]), cache))
    body = {**sweep_json.content(request, cache), "cache_plan": "another"}
    with pytest.raises(RequestError, match="it was begun on another cache"):
        sweep_json.check(request.out, body)


def test_a_directory_with_other_things_is_refused_and_left_alone(sweep: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="neither empty nor a sweep"):
        run_sweep(dataclasses.replace(sweep(), out=tmp_path))
    with pytest.raises(RequestError, match="is not a directory"):
        run_sweep(dataclasses.replace(sweep(), out=tmp_path / "notes.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_altered_sweep_json_is_damage(sweep: Any) -> None:
    request = sweep()
    sweep_json.put(request.out, sweep_json.content(request, open_cache(request.store)))
    file = request.out / sweep_json.NAME
    file.write_text(file.read_text().replace("forward-kl", "reverse-kl"))
    with pytest.raises(DamageError, match=r"sweep.json was altered: delete"):
        sweep_json.read(request.out)
