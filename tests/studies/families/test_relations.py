"""Files of pairs in each form, and what is wrong with others."""

import json
from pathlib import Path

import pytest

from alens import demo
from alens.errors import RequestError
from alens.model import models
from alens.studies.families.relations import SHIPPED, read_relations, relation_tokens

PAIRS = [["king", "queen"], ["man", "woman"]]


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("sexes.tsv", "# words\nking\tqueen\n\nman\twoman\n", ["sexes"]),
        ("sexes.json", json.dumps(PAIRS), ["sexes"]),
        ("many.json", json.dumps({"sexes": PAIRS, "again": PAIRS}), ["sexes", "again"]),
    ],
)
def test_a_file_of_each_form(tmp_path: Path, name: str, text: str, names: list[str]) -> None:
    (tmp_path / name).write_text(text)
    relations = read_relations([tmp_path / name])
    assert [relation.name for relation in relations] == names
    assert all(relation.pairs == (("king", "queen"), ("man", "woman")) for relation in relations)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "king,queen", "is not a file of pairs: give .json or .tsv"),
        ("a.tsv", "king queen\n", r"\['king queen'\]\" of 'a' is not a pair of two words"),
        ("a.tsv", "king\tqueen\tprince\n", "is not a pair of two words"),
        ("a.tsv", "king\t \n", "is not a pair of two words"),
        ("a.tsv", "# nothing\n", "holds no pairs of 'a'"),
        ("a.json", "{", "a.json is not JSON"),
        ("a.json", '{"a": []}', "holds no pairs of 'a'"),
        ("a.json", '{"a": [["king", 3]]}', "is not a pair of two words"),
        ("a.json", "{}", "has a relation without a name, or none"),
        ("a.json", '{" ": [["king", "queen"]]}', "has a relation without a name"),
        ("a.json", '"king"', "holds no pairs of 'a'"),
    ],
)
def test_what_is_no_file_of_pairs_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        read_relations([tmp_path / name])


def test_only_pairs_of_single_tokens_count() -> None:
    tokenizer, _ = models.load_tokenizer(models.find(str(demo.MODEL), hash_weights=False))
    (capitals, past) = read_relations([SHIPPED])
    assert (capitals.name, past.name) == ("capitals", "past-tense")
    tokens = relation_tokens(past, tokenizer)
    assert len(tokens.sources) + tokens.left_out == len(past.pairs) and tokens.is_enough
    assert not relation_tokens(capitals, tokenizer).is_enough
    words = [
        tokenizer.decode([source, target])
        for source, target in zip(tokens.sources, tokens.targets, strict=True)
    ]
    assert words[0] == " go went"


def test_shipped_pairs_are_all_different() -> None:
    for relation in read_relations([SHIPPED]):
        assert len({first for first, _ in relation.pairs}) == len(relation.pairs)
