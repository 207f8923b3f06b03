"""A clone without git-lfs has pointers in the place of weights, tokenizer, configuration and text."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from alens import demo
from alens.errors import RequestError
from alens.sources.lfs import MOST_BYTES, check_fetched

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4" * 64 + "\nsize 548105171\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_in_a_models_directory_is_said(run_alens: Any, tmp_path: Path, name: str) -> None:
    model = Path(shutil.copytree(demo.MODEL, tmp_path / "model"))
    (model / name).write_text(POINTER)
    code, _, err = run_alens("cache", model, "demo", tmp_path / "store")
    assert code == 2
    assert err.splitlines()[-1] == (
        f"alens: {model / name} is a pointer of git-lfs, not the file that it stands for: run `git lfs pull` in {model}"
    )


@pytest.mark.parametrize("name", ["text.parquet", "text.jsonl", "text.txt"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_pointer_in_the_place_of_a_text_is_said(
    run_alens: Any, tmp_path: Path, name: str, whole: bool
) -> None:
    """A pointer named .txt would be read as a text of three lines."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / name).write_text(POINTER)
    corpus = tmp_path / "texts" if whole else tmp_path / "texts" / name
    code, _, err = run_alens("cache", "demo", corpus, tmp_path / "store")
    assert code == 2 and f"{name} is a pointer of git-lfs, not the file" in err.splitlines()[-1]


def test_a_file_that_only_mentions_pointers_is_not_a_pointer(tmp_path: Path) -> None:
    for number, text in enumerate(["", "about " + POINTER, POINTER + "x" * MOST_BYTES]):
        (tmp_path / f"{number}.txt").write_text(text)
        check_fetched(tmp_path / f"{number}.txt")
    check_fetched(tmp_path)
    check_fetched(tmp_path / "nothing")
    (tmp_path / "pointer").write_text(POINTER)
    with pytest.raises(RequestError):
        check_fetched(tmp_path / "pointer")
