"""The record of the text that a lens was fitted on may come from anywhere."""

import pytest

from alens.errors import DamageError
from alens.evaluation.training import TextOfFit
from alens.store import typed

TEXT = {"files": ["0a"], "sequences_per_shard": 4, "tokens_sha256": "1b"}


def read(**changes: object) -> TextOfFit:
    return typed.parse(TextOfFit, {**TEXT, **changes}, "cache.text", "fit again")


def test_documents_are_read_as_stretches() -> None:
    text = read(trained_documents="1,3-5")
    assert text.trained(7).tolist() == [False, True, False, True, True, True, False]


def test_a_stretch_without_end_takes_no_more_than_there_are_documents() -> None:
    assert read(trained_documents="2-999999999999999").trained(4).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained_documents": "1-2-3"}, "trained_documents is not of the form"),
        ({"trained_documents": "-1"}, "trained_documents is not of the form"),
        ({"trained_documents": 5}, "trained_documents is 5: input should be a valid string"),
        ({"files": "0a"}, 'files is "0a": input should be a valid array'),
        ({"sequences_per_shard": 0}, "sequences_per_shard is 0"),
    ],
)
def test_what_cannot_be_is_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DamageError, match=f"cache.text is not whole .{message}"):
        read(**changes)
