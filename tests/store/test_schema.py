import dataclasses
import json
from typing import Any

import pytest

from alens.errors import DamageError, RequestError
from alens.store.schema import CacheSettings, CorpusFile, Plan, differences

OTHER_SETTINGS: dict[str, Any] = {
    "seq_len": 16,
    "max_rows": 64,
    "layers": (0,),
    "top_k": 4,
    "tail_samples": 3,
    "exact_teacher": True,
    "rows_per_shard": 64,
    "batch_size": 8,
    "dtype": "bfloat16",
    "z_dtype": "float16",  # the only one of format 1
    "seed": 1,
}


def changed(plan: Plan, part: str, **values: Any) -> Plan:
    return dataclasses.replace(plan, **{part: dataclasses.replace(getattr(plan, part), **values)})


def asked_again(plan: Plan, asked: Plan) -> list[str]:
    return differences(plan, asked.model, asked.corpus, asked.tokens.tokenizer_sha256, asked.settings)


def test_a_plan_survives_its_file(tiny_plan: Plan) -> None:
    plan = dataclasses.replace(changed(tiny_plan, "settings", layers=(0,)), created={"host": "here"})
    assert Plan.from_json(plan.to_json(), "plan.json") == plan


def test_every_setting_is_tested_here() -> None:
    assert OTHER_SETTINGS.keys() == {field.name for field in dataclasses.fields(CacheSettings)}


@pytest.mark.parametrize("name", sorted(OTHER_SETTINGS.keys() - {"z_dtype", "layers"}))
def test_another_setting_is_another_plan_and_is_named(tiny_plan: Plan, name: str) -> None:
    other = changed(tiny_plan, "settings", **{name: OTHER_SETTINGS[name]})
    assert other.identity != tiny_plan.identity
    (difference,) = asked_again(tiny_plan, other)
    assert difference.startswith(f"{name} is {OTHER_SETTINGS[name]}")


def test_other_layers_are_another_plan_and_are_named(tiny_plan: Plan) -> None:
    wide = changed(tiny_plan, "model", n_layers=3)
    narrow = changed(wide, "settings", layers=(0, 2))
    assert narrow.identity != wide.identity
    assert asked_again(wide, narrow) == ["layers is [0, 2] (the cache: [0, 1, 2])"]


def test_all_layers_by_name_are_all_layers(tiny_plan: Plan) -> None:
    assert asked_again(tiny_plan, changed(tiny_plan, "settings", layers=(0,))) == []


@pytest.mark.parametrize(
    ("part", "values", "says"),
    [
        ("model", {"weights_sha256": "9" * 64}, "other weights"),
        ("tokens", {"tokenizer_sha256": "9" * 64}, "tokenizer"),
        ("corpus", {"files": (CorpusFile(name="tiny.txt", bytes=5, sha256="9" * 64),)}, "other files"),
        ("corpus", {"split": "test"}, "split is test"),
        ("corpus", {"text_column": "body"}, "text_column is body"),
        ("corpus", {"document_column": "book"}, "document_column is book"),
        ("corpus", {"row_documents": True}, "row_documents is True"),
    ],
)
def test_another_input_is_another_plan_and_is_named(
    tiny_plan: Plan, part: str, values: dict[str, Any], says: str
) -> None:
    other = changed(tiny_plan, part, **values)
    assert other.identity != tiny_plan.identity
    (difference,) = asked_again(tiny_plan, other)
    assert says in difference


def test_names_places_and_software_are_not_identity(tiny_plan: Plan) -> None:
    moved = changed(tiny_plan, "model", id="elsewhere/tiny", revision="abc")
    moved = changed(
        moved, "corpus", id="/data", files=(CorpusFile(name="other.txt", bytes=5, sha256="2" * 64),)
    )
    moved = dataclasses.replace(moved, created={"torch": "3.0"})
    assert moved.identity == tiny_plan.identity
    assert asked_again(tiny_plan, moved) == []


def test_a_plan_cut_short_anywhere_is_damaged(tiny_plan: Plan) -> None:
    text = tiny_plan.to_json().rstrip()
    for length in range(0, len(text), 7):
        with pytest.raises(DamageError, match=r"STORE/plan\.json is not a whole plan"):
            Plan.from_json(text[:length], "STORE/plan.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '"text"', "{}", '{"format": 1, "identity": "x"}'])
def test_other_json_is_no_plan(text: str) -> None:
    with pytest.raises(DamageError, match="not a whole plan"):
        Plan.from_json(text, "plan.json")


@pytest.mark.parametrize("part", ["model", "corpus", "settings", "tokens"])
@pytest.mark.parametrize("value", [None, [], {}, 3, {"unknown": 1}])
def test_a_part_that_is_not_whole_is_damage(tiny_plan: Plan, part: str, value: Any) -> None:
    body = json.loads(tiny_plan.to_json())
    body[part] = value
    with pytest.raises(DamageError):
        Plan.from_json(json.dumps(body), "plan.json")


def test_every_altered_number_is_noticed(tiny_plan: Plan) -> None:
    body = json.loads(tiny_plan.to_json())
    for part in ("model", "settings", "tokens"):
        for name, value in body[part].items():
            if type(value) is int:
                altered = {**body, part: {**body[part], name: value + 1}}
                with pytest.raises(DamageError):
                    Plan.from_json(json.dumps(altered), "plan.json")


def test_a_later_format_is_refused_by_its_number(tiny_plan: Plan) -> None:
    body = {**json.loads(tiny_plan.to_json()), "format": 2}
    with pytest.raises(RequestError, match="format 2; this alens reads format 1"):
        Plan.from_json(json.dumps(body), "plan.json")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seq_len": 0}, "seq_len is 0"),
        ({"seq_len": 1}, "seq_len is 1"),
        ({"top_k": 0}, "top_k is 0"),
        ({"tail_samples": -1}, "tail_samples is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rows_per_shard": 0}, "rows_per_shard is 0"),
        ({"max_rows": 0}, "max_rows is 0"),
        ({"max_rows": 500, "rows_per_shard": 512}, "max_rows is 500: fewer than one shard of 512 rows"),
        ({"seed": -1}, "seed is -1"),
        ({"seq_len": 64, "rows_per_shard": 1000}, "not a multiple of seq_len 64: take 1024"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"z_dtype": "int8"}, "z_dtype is 'int8'"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        CacheSettings(**values)
