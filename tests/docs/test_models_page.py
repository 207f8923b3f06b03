"""The page of models: what works has a tiny model in the tests, and a quoted refusal is one that they see."""

import re

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..model import families
from ..model.kinds import KINDS
from ..model.test_bridge import CODES, NO_HEADS, REFUSED
from ..model.test_examine import OTHERS
from .pages import ROOT

PAGE = (ROOT / "docs/models.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    part = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def tiny_models() -> set[str]:
    """The classes of all tiny models of the tests."""
    import transformers

    tables = [value for value in vars(families).values() if isinstance(value, dict)] + [KINDS]
    configs = {one.config for table in tables for one in table.values() if hasattr(one, "config")}
    configs |= {config for config, _ in OTHERS.values()}
    return {MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[getattr(transformers, config).model_type] for config in configs}


def works() -> set[str]:
    return {name for row in rows("Works") for name in re.findall(r"`(\w+)`", row[0])}


def test_what_works_has_a_tiny_model_in_the_tests_that_are_named() -> None:
    assert len(works()) > 20
    assert works() <= tiny_models()
    for row in rows("Works"):
        for name in re.findall(r"`(tests/\S+)`", row[3]):
            assert (ROOT / name).exists()


def test_every_kind_is_on_the_page() -> None:
    import transformers

    configs = [getattr(transformers, kind.config).model_type for kind in KINDS.values()]
    assert {MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config] for config in configs} <= works()


@pytest.mark.parametrize("row", rows("Refused"), ids=lambda row: row[0].strip("`"))
def test_a_quoted_refusal_is_one_that_the_tests_see(row: list[str]) -> None:
    """`test_bridge.py` holds that these lines are printed."""
    if row[0].startswith("GPTQ"):
        assert {name.lower() for name in re.split(", ", row[0])} == CODES.keys()
    else:
        assert any(message.startswith(row[1]) for _, _, message in REFUSED.values())


def test_the_line_about_a_layer_without_heads_is_the_one_that_the_tests_see() -> None:
    assert f"> {NO_HEADS}\n" in PAGE


def test_refused_hybrids_are_in_the_tests_by_their_class() -> None:
    for name in ("zamba2", "recurrent-gemma", "nemotron-h"):
        assert any(row[1] == REFUSED[name][2] for row in rows("Refused"))
