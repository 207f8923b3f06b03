"""Plans: what changes their identity, how they are written and read back, and what they refuse."""

import dataclasses
import json
from typing import Any

import pytest

from alens.errors import DamageError, RequestError
from alens.store import document
from alens.store.plan_differences import differences
from alens.store.schema import CacheSettings, CorpusFile, Plan

OTHER_SETTINGS: dict[str, Any] = {
    "seq_len": 16,
    "bos": True,
    "moments_only": True,
    "max_rows": 64,
    "layers": (0,),
    "top_k": 4,
    "tail_samples": 3,
    "exact_teacher": True,
    "rows_per_shard": 64,
    "batch_size": 8,
    "dtype": "bfloat16",
    "z_dtype": "int8",
    "keep_bits": 5,
    "sites": ("mlp_out",),
    "final_moments": True,
    "seed": 1,
}


def changed(plan: Plan, part: str, **values: Any) -> Plan:
    return dataclasses.replace(plan, **{part: dataclasses.replace(getattr(plan, part), **values)})


def altered_with_care(body: dict[str, Any]) -> bytes:
    """A document with the right hash of its contents, whatever they are."""
    return document.encode({name: value for name, value in body.items() if name != document.OWN_HASH})


def asked_again(plan: Plan, asked: Plan) -> list[str]:
    return differences(plan, asked.model, asked.corpus, asked.tokens.tokenizer_sha256, asked.settings)


def test_a_plan_survives_its_file(tiny_plan: Plan) -> None:
    settings = {"layers": (0,), "keep_bits": 5, "sites": ("mlp_out", "resid_post")}
    plan = dataclasses.replace(changed(tiny_plan, "settings", **settings), created={"host": "hère"})
    assert Plan.from_json(plan.to_json(), "plan.json") == plan


def test_a_plan_from_before_some_settings_is_the_same_plan(tiny_plan: Plan) -> None:
    """A setting that a later version adds does not change the plan of older caches."""
    body = json.loads(tiny_plan.to_json())
    del body["settings"]["keep_bits"], body["settings"]["sites"], body["numerics"]
    body["identity"] = "e5ae57cc34f95b80bd6498509235c69f813a351c876e13bd7a0dfb0d676b831b"
    older = Plan.from_json(altered_with_care(body), "plan.json")
    assert older == dataclasses.replace(tiny_plan, numerics=None)
    assert older.identity == body["identity"]


def test_every_setting_is_tested_here() -> None:
    assert OTHER_SETTINGS.keys() == {field.name for field in dataclasses.fields(CacheSettings)}


@pytest.mark.parametrize("name", sorted(OTHER_SETTINGS.keys() - {"layers"}))
def test_another_setting_is_another_plan_and_is_named(tiny_plan: Plan, name: str) -> None:
    other = changed(tiny_plan, "settings", **{name: OTHER_SETTINGS[name]})
    assert other.identity != tiny_plan.identity
    (difference,) = asked_again(tiny_plan, other)
    value = OTHER_SETTINGS[name]
    assert difference.startswith(f"{name} is {','.join(value) if name == 'sites' else value} (the cache: ")


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
    content = tiny_plan.to_json()
    for length in range(len(content)):
        with pytest.raises(DamageError, match=r"STORE/plan\.json (is not whole|was altered)"):
            Plan.from_json(content[:length], "STORE/plan.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '"text"', "{}", '{"format": 1, "identity": "x"}'])
def test_other_json_is_no_plan(text: str) -> None:
    with pytest.raises(DamageError, match="is not whole"):
        Plan.from_json(text.encode(), "plan.json")


@pytest.mark.parametrize("body", [{}, {"format": 1}, {"identity": "x"}, {"format": 1, "identity": "x"}])
def test_another_document_is_no_plan(body: dict[str, Any]) -> None:
    """Such as a commit record in its place: a whole document, but not a plan."""
    with pytest.raises(DamageError, match=r"plan\.json is not whole .*see `alens verify`"):
        Plan.from_json(document.encode(body), "plan.json")


@pytest.mark.parametrize("part", ["model", "corpus", "settings", "tokens"])
@pytest.mark.parametrize("value", [None, [], {}, 3, {"unknown": 1}])
def test_a_part_that_is_not_whole_is_damage(tiny_plan: Plan, part: str, value: Any) -> None:
    body = {**json.loads(tiny_plan.to_json()), part: value}
    with pytest.raises(DamageError):
        Plan.from_json(altered_with_care(body), "plan.json")


def test_every_altered_number_is_noticed(tiny_plan: Plan) -> None:
    """The identity tells, though the document's own hash was made right."""
    body = json.loads(tiny_plan.to_json())
    for part in ("model", "settings", "tokens"):
        for name, value in body[part].items():
            if type(value) is int:
                altered = {**body, part: {**body[part], name: value + 1}}
                with pytest.raises(DamageError):
                    Plan.from_json(altered_with_care(altered), "plan.json")


@pytest.mark.parametrize("part", ["created", "model", "corpus"])
def test_what_is_no_identity_may_not_be_altered_either(tiny_plan: Plan, part: str) -> None:
    plan = dataclasses.replace(tiny_plan, created={"id": "tiny by a host"})
    body = json.loads(plan.to_json())
    body[part] = {**body[part], "id": "elsewhere"}
    with pytest.raises(DamageError, match=r"plan\.json was altered .*see `alens verify`"):
        Plan.from_json((json.dumps(body, indent=1) + "\n").encode(), "plan.json")
    assert Plan.from_json(altered_with_care(body), "plan.json").identity == tiny_plan.identity


def test_a_later_format_is_refused_by_its_number(tiny_plan: Plan) -> None:
    body = {**json.loads(tiny_plan.to_json()), "format": 2}
    with pytest.raises(RequestError, match="format 2; this alens reads format 1"):
        Plan.from_json(altered_with_care(body), "plan.json")


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
        ({"z_dtype": "int4"}, "z_dtype is 'int4': it must be one of float16, int8"),
        ({"keep_bits": 10}, "keep_bits is 10: float16 has 10 mantissa bits, keep 0 to 9 of them"),
        ({"keep_bits": -1}, "keep_bits is -1: .*keep 0 to 9 of them, or leave it out to keep all"),
        ({"keep_bits": 5, "z_dtype": "int8"}, "keep_bits rounds float16, and z_dtype is int8: choose one"),
        ({"sites": ()}, "sites is empty: name resid_post or mlp_out, each once"),
        ({"sites": ("attn.z",)}, r"sites is attn.z: .*each once \(attn.z is always cached\)"),
        ({"sites": ("resid_post", "resid_pre")}, "sites is resid_post,resid_pre: name resid_post or mlp_out"),
        (
            {"sites": ("mlp_out", "mlp_out")},
            "sites is mlp_out,mlp_out: name resid_post or mlp_out, each once",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        CacheSettings(**values)


def test_a_plan_of_other_numerics_is_another_plan_and_is_named(tiny_plan: Plan) -> None:
    older = dataclasses.replace(tiny_plan, numerics=None)
    assert older.identity != tiny_plan.identity
    assert Plan.from_json(older.to_json(), "plan.json") == older
    (difference,) = asked_again(older, tiny_plan)
    assert difference.startswith("it was begun by another alens")
