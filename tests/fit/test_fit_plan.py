"""The plan of a fit: resolved once, written before the first step, and the same when the fit goes on."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import FitRequest, open_cache
from alens.errors import DamageError, RequestError
from alens.fit.fit_plan import as_begun, begun, check_place, put_plan, resolve
from alens.fit.settings import FitSettings
from alens.fit.training_shards import eval_rows
from alens.heads import HeadNames
from alens.lens.directory import LensDirectory

from .. import documents


def request(store: Path, lenses: Path, **settings: Any) -> FitRequest:
    return FitRequest(store=store, lenses=lenses, settings=FitSettings(**{"eval_rows": 1024, **settings}))


def resolved(store: Path, lenses: Path, **settings: Any) -> Any:
    return resolve(request(store, lenses, **settings), open_cache(store))


@pytest.mark.parametrize(("eval_rows", "held_out"), [(1, 1), (1024, 1), (1025, 2), (4096, 4)])
def test_the_last_whole_shards_are_held_out(
    demo_cache: Path, tmp_path: Path, eval_rows: int, held_out: int
) -> None:
    plan = resolved(demo_cache, tmp_path / "lenses", eval_rows=eval_rows)
    assert plan.held_out_shards == tuple(range(6))[-held_out:]
    assert plan.train_shards == tuple(range(6))[:-held_out]


@pytest.mark.parametrize(("shards", "rows"), [(1, 512), (19, 512), (20, 1024), (400, 16_384)])
def test_a_tenth_is_held_out_where_no_number_is_given(demo_cache: Path, shards: int, rows: int) -> None:
    plan = open_cache(demo_cache).plan
    settings = dataclasses.replace(plan.settings, rows_per_shard=512)
    tokens = dataclasses.replace(plan.tokens, sequences=shards * settings.sequences_per_shard)
    large = dataclasses.replace(plan, settings=settings, tokens=tokens)
    assert eval_rows(FitSettings(), large) == rows
    assert eval_rows(FitSettings(eval_rows=7), large) == 7


@pytest.mark.parametrize(("rows", "ratio"), [(512, 1.0), (1024, 1.0), (2048, 2.0), (65_536, 8.0)])
def test_rates_follow_the_rows_of_a_step(demo_cache: Path, tmp_path: Path, rows: int, ratio: float) -> None:
    plan = resolved(demo_cache, tmp_path / "lenses", batch_rows=rows, steps=2)
    assert plan.settings["lr"] == pytest.approx(0.01 * ratio**0.5)
    assert plan.betas == pytest.approx((0.9**ratio, 0.999**ratio))
    given = resolved(demo_cache, tmp_path / "lenses", batch_rows=rows, steps=2, lr=0.02)
    assert (given.settings["lr"], given.betas) == (0.02, plan.betas)


def test_a_fit_of_large_steps_that_an_older_alens_began_keeps_its_rates(
    demo_cache: Path, tmp_path: Path
) -> None:
    asked = request(demo_cache, tmp_path / "lenses", batch_rows=2048, steps=2)
    plan = resolve(asked, open_cache(demo_cache))
    directory = LensDirectory(asked.lenses)
    put_plan(directory, dataclasses.replace(plan, settings={**plan.settings, "lr": 0.01}, decay_power=None))
    assert "decay_power" not in json.loads(directory.fit_json.read_text())
    goes_on = resolve(asked, open_cache(demo_cache))
    assert (goes_on.settings["lr"], goes_on.betas) == (0.01, (0.9, 0.999))
    assert plan.betas != goes_on.betas


def test_a_fit_goes_on_with_the_defaults_that_it_was_begun_with(demo_cache: Path, tmp_path: Path) -> None:
    asked = FitRequest(store=demo_cache, lenses=tmp_path / "lenses")
    plan = resolve(asked, open_cache(demo_cache))
    old = dataclasses.replace(plan, settings={**plan.settings, "lr": 0.5, "eval_rows": 512})
    put_plan(LensDirectory(asked.lenses), old)
    assert resolve(asked, open_cache(demo_cache)) == old
    of_defaults, of_rate = (
        as_begun(asked, old, open_cache(demo_cache)) for asked in (FitSettings(), FitSettings(lr=0.1))
    )
    assert (of_defaults.lr, of_rate.lr) == (0.5, 0.1)
    with pytest.raises(RequestError, match=r"lr is 0.1 \(begun: 0.5\)"):
        resolve(dataclasses.replace(asked, settings=FitSettings(lr=0.1)), open_cache(demo_cache))


def test_no_sequence_is_both_trained_on_and_held_out(demo_cache: Path, tmp_path: Path) -> None:
    cache, plan = open_cache(demo_cache), resolved(demo_cache, tmp_path / "lenses")
    train, held_out = (
        {int(s) for shard in shards for s in cache.read_shard("rows/sequence", shard)}
        for shards in (plan.train_shards, plan.held_out_shards)
    )
    assert len(train) == 5 * 16 and len(held_out) == 16
    assert not train & held_out


def test_eval_rows_that_leave_nothing_to_train_on_are_refused(demo_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"6 committed shards, and 6 would be held out .* nothing is left"):
        resolved(demo_cache, tmp_path / "lenses", eval_rows=5121)


def test_held_out_documents_are_never_trained_on(document_cache: Path, tmp_path: Path) -> None:
    cache, plan = open_cache(document_cache), resolved(document_cache, tmp_path / "lenses")
    assert (plan.train_shards, plan.held_out_shards) == ((0, 1, 2, 3, 4), (5,))
    train, judged = (
        {
            int(d)
            for shard in shards
            for d in cache.token_documents[cache.read_shard("rows/sequence", shard)].flat
        }
        for shards in (plan.train_shards, plan.held_out_shards)
    )
    assert train and judged and not train & judged


def test_more_eval_rows_than_held_out_documents_give_are_said(
    document_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = resolved(document_cache, tmp_path / "lenses", eval_rows=3000)
    assert (plan.train_shards, plan.held_out_shards) == ((0, 1, 2, 3, 4), (5,))
    (said,) = caplog.messages
    assert "held-out documents give 1,024 rows of the 3,072 that --eval-rows asks for" in said


def test_fewer_eval_rows_leave_the_other_held_out_documents_alone(
    tmp_path: Path, document_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document may lie in several of the held-out shards."""
    cache = open_cache(document_cache)
    monkeypatch.setattr(
        cache,
        "plan",
        dataclasses.replace(cache.plan, tokens=dataclasses.replace(cache.plan.tokens, held_out_sequences=48)),
    )
    plan = resolve(request(document_cache, tmp_path / "lenses", eval_rows=1), cache)
    assert (plan.train_shards, plan.held_out_shards) == ((0, 1, 2), (5,))


def test_a_cache_whose_held_out_documents_are_missing_is_fitted_with_a_warning(
    document_cache: Path, tmp_path: Path, copy_of: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    growing = copy_of(document_cache)
    (growing / "MANIFEST.json").unlink()
    (growing / "commits" / "000005.json").unlink()
    plan = resolved(growing, tmp_path / "lenses")
    assert (plan.train_shards, plan.held_out_shards) == ((0, 1, 2, 3), (4,))
    assert "no shard of its held-out documents is committed yet" in caplog.messages[-1]


def test_layers_and_heads_default_to_all(demo_cache: Path, tmp_path: Path) -> None:
    plan = resolved(demo_cache, tmp_path / "lenses")
    assert (plan.layers, plan.heads) == ((0, 1, 2, 3), (0, 1, 2, 3, 4, 5))


@pytest.mark.parametrize("name", ["layers", "heads"])
@pytest.mark.parametrize("given", [(), (1, 1)])
def test_none_or_one_twice_is_refused(
    demo_cache: Path, tmp_path: Path, name: str, given: tuple[int, ...]
) -> None:
    with pytest.raises(RequestError, match=f"{name} is empty or names one twice"):
        resolved(demo_cache, tmp_path / "lenses", **{name: given})


def test_epochs_become_steps(demo_cache: Path, tmp_path: Path) -> None:
    plan = resolved(demo_cache, tmp_path / "lenses", epochs=2.0, batch_rows=100)
    assert plan.steps == 2 * 5 * 16 * 63 // 100


def test_steps_beat_epochs(demo_cache: Path, tmp_path: Path) -> None:
    assert resolved(demo_cache, tmp_path / "lenses", epochs=2.0, steps=7).steps == 7


def test_a_begun_fit_is_the_same_fit(demo_cache: Path, tmp_path: Path) -> None:
    plan = resolved(demo_cache, tmp_path / "lenses", steps=7)
    put_plan(LensDirectory(tmp_path / "lenses"), plan)
    assert resolved(demo_cache, tmp_path / "lenses", steps=7) == plan


def test_a_begun_fit_keeps_its_shards_though_the_cache_grew(
    demo_cache: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    growing = copy_of(demo_cache)
    (growing / "MANIFEST.json").unlink()
    (growing / "commits" / "000005.json").rename(tmp_path / "later.json")
    plan = resolved(growing, tmp_path / "lenses")
    put_plan(LensDirectory(tmp_path / "lenses"), plan)
    (tmp_path / "later.json").rename(growing / "commits" / "000005.json")
    assert open_cache(growing).shards == (0, 1, 2, 3, 4, 5)
    assert resolved(growing, tmp_path / "lenses").held_out_shards == (4,)


@pytest.mark.parametrize("heads", ["2.0-1", "2.1,2.0", [(2, 0), (2, 1)]])
def test_a_fit_goes_on_whatever_the_words_for_its_heads(
    demo_cache: Path, tmp_path: Path, heads: HeadNames
) -> None:
    plan = resolved(demo_cache, tmp_path / "lenses", layers=(2,), heads=(0, 1))
    put_plan(LensDirectory(tmp_path / "lenses"), plan)
    assert resolved(demo_cache, tmp_path / "lenses", heads=heads) == plan
    with pytest.raises(RequestError, match="holds another fit: "):
        resolved(demo_cache, tmp_path / "lenses", heads="2.0-2")


@pytest.mark.parametrize(
    ("name", "other"), [("lr", 0.5), ("steps", 8), ("layers", (1,)), ("seed", 3), ("teacher", "exact")]
)
def test_other_settings_on_a_begun_fit_are_named(
    demo_cache: Path, tmp_path: Path, name: str, other: object
) -> None:
    put_plan(LensDirectory(tmp_path / "lenses"), resolved(demo_cache, tmp_path / "lenses", steps=7))
    with pytest.raises(RequestError, match=rf"holds another fit: {name} is .* \(begun: "):
        resolved(demo_cache, tmp_path / "lenses", **{"steps": 7, name: other})


def test_another_cache_under_a_begun_fit_is_refused(
    demo_cache: Path, planted_store: Path, tmp_path: Path
) -> None:
    put_plan(LensDirectory(tmp_path / "lenses"), resolved(demo_cache, tmp_path / "lenses"))
    with pytest.raises(RequestError, match="begun on another cache than"):
        resolved(planted_store, tmp_path / "lenses")


@pytest.mark.parametrize("text", ["", '{"cache_plan": "x"', "[]", "{}"])
def test_a_damaged_fit_json_is_named(demo_cache: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(DamageError, match=r"fit.json is not whole"):
        resolved(demo_cache, tmp_path)


def test_lenses_that_were_not_begun_here_are_refused(demo_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "lens.json").write_text("{}")
    with pytest.raises(RequestError, match=r"not begun here \(it has no fit.json\)"):
        resolved(demo_cache, tmp_path)


def test_a_directory_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RequestError, match="neither empty nor a fit"):
        check_place(LensDirectory(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_fit_left_is_no_other_thing(tmp_path: Path) -> None:
    (tmp_path / "alens.claim").touch()
    (tmp_path / "stopped.json").touch()  # told to stop while it waited for other processes
    (tmp_path / ".fit.json.host-1-ab.partial").touch()
    check_place(LensDirectory(tmp_path))
    check_place(LensDirectory(tmp_path / "new"))


def test_an_empty_directory_is_taken(demo_cache: Path, tmp_path: Path) -> None:
    put_plan(LensDirectory(tmp_path), resolved(demo_cache, tmp_path))
    assert json.loads((tmp_path / "fit.json").read_text())["train_shards"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [0, 0]}, r"layers is \[0, 0\]: input should be one or more, each once"),
        ({"heads": []}, r"heads is \[\]: input should be one or more"),
        ({"train_shards": [5]}, "train_shards and held_out_shards share a shard"),
        ({"steps": "6"}, r'steps is "6": input should be a valid integer'),
    ],
)
def test_a_plan_that_cannot_be_names_the_field(
    demo_lenses: Path, copy_of: Any, changes: dict[str, Any], message: str
) -> None:
    lenses = copy_of(demo_lenses)
    documents.edit(lenses / "fit.json", lambda body: body.update(changes))
    with pytest.raises(DamageError, match=rf"fit\.json is not whole \({message}"):
        begun(LensDirectory(lenses))
