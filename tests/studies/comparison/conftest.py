"""Two sets of prompts that differ in one word, and their comparison."""

from dataclasses import replace
from pathlib import Path

import pytest

from alens.reading.lensed_model import LensedModel
from alens.studies.comparison.compare import compare
from alens.studies.comparison.prompt_sets import PromptSet, prompt_set
from alens.studies.comparison.result import Comparison

from .examples import ADJECTIVES, PARTS, QUICK


@pytest.fixture
def sets(tmp_path: Path) -> tuple[PromptSet, PromptSet]:
    """Two sets of prompts; the two of a pair differ in one word."""
    pair_of_sets = []
    for adjective in ADJECTIVES:
        path = tmp_path / f"{adjective}.txt"
        path.write_text("".join(f"The {who} went to the {adjective} {what} and\n" for who, what in PARTS))
        pair_of_sets.append(prompt_set(str(path)))
    return pair_of_sets[0], pair_of_sets[1]


@pytest.fixture
def compared(reader: LensedModel, sets: tuple[PromptSet, PromptSet]) -> Comparison:
    return compare(reader, *sets, settings=replace(QUICK, paired=True))
