"""Sequences that repeat themselves differ from their controls in the repetition alone."""

from pathlib import Path

import pytest

from alens.model import models
from alens.studies.families.repeated_tokens import RepeatedTokens

from .planted_heads import LENGTH, SIZE


@pytest.fixture(scope="module")
def tokens(planted: Path) -> RepeatedTokens:
    return RepeatedTokens(models.load(models.find(str(planted)), dtype="float32", device="cpu"), LENGTH, 0)


def test_a_sequence_repeats_and_its_control_does_not(tokens: RepeatedTokens) -> None:
    for number in range(20):
        repeated, control = tokens.pair(number)
        assert repeated[1 : 1 + LENGTH] == repeated[1 + LENGTH :] == control[1 + LENGTH :]
        assert len(set(control)) == len(control) == 1 + 2 * LENGTH
        assert repeated[0] == control[0] == 0
        assert 0 not in control[1:] and max(control) < SIZE


def test_a_sequence_depends_on_its_number_alone(tokens: RepeatedTokens) -> None:
    repeated_BT, control_BT = tokens.batch([5, 2])
    assert [repeated_BT[1].tolist(), control_BT[1].tolist()] == list(map(list, tokens.pair(2)))
    assert tokens.pair(2) != tokens.pair(5)
