"""What studies take in Python: words, texts and directories as well as what alens made of them, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from alens import (
    AblateSettings,
    HeadReader,
    InjectSettings,
    LocateSettings,
    Prompt,
    ablate,
    compare,
    inject,
    locate,
    open_cache,
    prompt_set,
)
from alens.errors import RequestError
from alens.reading.given import prompts_of, reader_of, settings_of, terms_of

MEN = ["The man said that", "The boy said that", "The king said that"]
WOMEN = ["The woman said that", "The girl said that", "The queen said that"]
ZERO = AblateSettings(heads="3.1", kind="zero")


@pytest.fixture(scope="module")
def reader(demo_lenses: Path) -> HeadReader:
    return HeadReader(demo_lenses, device="cpu")


def test_words_and_texts_are_what_they_say(reader: HeadReader) -> None:
    settings = LocateSettings(layers=(3,), permutations=19)
    terms, men, women = (
        reader.terms(["he"]),
        [Prompt(text=one) for one in MEN],
        [Prompt(text=one) for one in WOMEN],
    )
    made = locate(reader, terms, men, women, settings=settings)
    assert locate(reader, ["he"], MEN, WOMEN, settings=settings).to_json() == made.to_json()
    assert (
        ablate(reader, MEN[:1], ZERO, terms=["he"]).to_json()
        == ablate(reader, men[:1], ZERO, terms=terms).to_json()
    )


def test_two_texts_or_lists_of_them_are_compared(reader: HeadReader) -> None:
    by_sets = compare(reader, prompt_set(MEN[0]), prompt_set(WOMEN[0]))
    assert compare(reader, MEN[0], WOMEN[0]).to_json() == by_sets.to_json()
    several = compare(reader, MEN, [*WOMEN, WOMEN[0]])
    assert (several.num_clean, several.num_suspect) == (3, 3)


def test_lenses_are_a_reader_that_is_not_loaded_yet(demo_lenses: Path, reader: HeadReader) -> None:
    assert reader_of(reader) is reader
    assert reader_of(str(demo_lenses)).lenses.record == reader.lenses.record


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda reader: terms_of(reader, "he"), "terms is the string 'he': give a list of words"),
        (lambda reader: terms_of(reader, [3]), "terms holds a int: give a list of words"),
        (lambda reader: terms_of(reader, [*reader.terms(["he"]), "she"]), "words and terms: give either"),
        (lambda reader: terms_of(reader, 3), "terms is a int: give a list of words"),
        (lambda reader: prompts_of("He", "prompts"), "prompts is the string 'He': give a list of texts"),
        (lambda reader: prompts_of({"a": 1}, "controls"), "controls is a dict: give a list of texts"),
        (lambda reader: settings_of({}, LocateSettings), r"settings is a dict: give LocateSettings\(...\)"),
        (lambda reader: inject(reader, MEN, InjectSettings(layer=3, head=1), ["he"]), "settings is a list: give Inj"),
        (lambda reader: ablate(reader, MEN, InjectSettings(layer=3, head=1)), "settings is a InjectSettings: give Abl"),
        (lambda reader: locate(reader, ["he"], MEN, "The woman"), "controls is the string"),
        (lambda reader: compare(reader, MEN, 3), "suspect is a int: give a list"),
        (lambda reader: compare(reader, [], MEN), "clean is empty"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_a_line(reader: HeadReader, call: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        call(reader)


def test_a_cache_is_not_a_reader(demo_cache: Path) -> None:
    with pytest.raises(RequestError, match=r"^reader is a Cache: give HeadReader\(lenses\)"):
        locate(open_cache(demo_cache), ["he"], MEN)  # type: ignore[arg-type]
