"""Terms, and where the demo's heads raise them."""

import pytest

from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term, to_tokens
from alens.studies.location.locate import locate
from alens.studies.location.result import Location

from .examples import MEN, WOMEN, WORDS, prompts


@pytest.fixture(scope="module")
def terms(reader: LensedModel) -> list[Term]:
    return to_tokens(WORDS, reader.model.tokenizer)


@pytest.fixture(scope="module")
def location(reader: LensedModel, terms: list[Term]) -> Location:
    return locate(reader, terms, prompts(MEN), prompts(WOMEN))
