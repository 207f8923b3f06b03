"""A prompt, or a file of prompts, as it is named on the command line."""

from pathlib import Path

import pytest

from alens.errors import RequestError
from alens.reading.lensed_model import LensedModel
from alens.studies.comparison.compare import compare
from alens.studies.comparison.prompt_sets import prompt_set
from alens.studies.comparison.settings import CompareSettings

from .examples import labelled


def test_prompts_that_are_there_twice_count_once(reader: LensedModel, tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text("He went\nShe went\nHe went\n")
    given = prompt_set(str(path))
    assert (given.texts, given.repeated) == (["He went", "She went"], 1)
    comparison = compare(reader, given, prompt_set("They went"))
    assert comparison.num_clean == 2 and comparison.notes == [
        f"1 prompts of {path} stood there before and count once"
    ]
    with pytest.raises(RequestError, match="has 1 prompts twice: pairs need distinct ones"):
        compare(reader, given, prompt_set("They went"), settings=CompareSettings(paired=True))


def test_a_prompt_with_two_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"jsonl:2 has another label than .*jsonl:1, with the same text"):
        labelled(tmp_path / "test.jsonl", [("He went", "clean"), ("He went", "suspect")])


def test_a_name_is_a_file_and_a_text_is_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "The").mkdir()
    (tmp_path / "prompts.txt").write_text("He\n")
    assert prompt_set("prompts.txt").is_file
    for text in ("The", "He went", "x" * 5000, "nul\0", ""):
        assert not prompt_set(text).is_file and prompt_set(text).texts == [text]
    (tmp_path / "notes").write_text("He\n")
    for name, message in (("notes", "is not a file of prompts"), ("gone.txt", "cannot read gone.txt")):
        with pytest.raises(RequestError, match=message):
            prompt_set(name)
