"""The card of a data set: its configurations, and cards that cannot be followed."""

from pathlib import Path

import pytest

from alens.errors import RequestError
from alens.text.dataset_card import Configuration, matching, read_card


def card(folder: Path, head: str) -> tuple[Configuration, ...]:
    (folder / "README.md").write_text(f"---\n{head}---\n# A data set\n")
    return read_card(folder)


def test_configurations_in_all_forms(tmp_path: Path) -> None:
    head = """\
license: mit
configs:
- config_name: a
  default: true
  data_files:
  - split: train
    path: a/train-*
  - split: test
    path: [a/test-*, "a/more.parquet"]
- config_name: b
  data_files: b.parquet
- config_name: c
  data_files: {valid: c/*.txt}
- config_name: d
  data_dir: d
- data_files: [x.txt, y.txt]
"""
    assert card(tmp_path, head) == (
        Configuration(
            name="a",
            patterns={"train": ("a/train-*",), "test": ("a/test-*", "a/more.parquet")},
            is_default=True,
        ),
        Configuration(name="b", patterns={"train": ("b.parquet",)}),
        Configuration(name="c", patterns={"valid": ("c/*.txt",)}),
        Configuration(name="d", folder="d"),
        Configuration(name="default", patterns={"train": ("x.txt", "y.txt")}, is_default=True),
    )


@pytest.mark.parametrize("content", [None, "# Novels\n", "---\nlicense: mit\n---\n", "---\n---\n", "---\n"])
def test_a_readme_without_configurations_says_nothing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "README.md").write_text(content)
    assert read_card(tmp_path) == ()


@pytest.mark.parametrize(
    "head",
    ["configs: [a: b: c\n", "- a\n- b\n", "configs: 5\n", "configs: [5]\n", "configs: [{data_files: 5}]\n",
     "configs: [{data_files: [{path: x}]}]\n", "configs: [{data_files: [{split: train, path: [1]}]}]\n",
     "configs: [{data_files: '**a.txt'}]\n", "configs: !!python/object/apply:os.getcwd []\n"],
)  # fmt: skip
def test_a_head_that_cannot_be_followed_is_refused(tmp_path: Path, head: str) -> None:
    with pytest.raises(
        RequestError, match=r"the head of .*README\.md does not say which files to read \(.+\)"
    ):
        card(tmp_path, head)


def test_patterns_are_those_of_cards() -> None:
    names = ["a.txt", "x/a.txt", "x/y/a.txt", "a[1].txt", "a1.txt"]
    assert matching("*.txt", names) == ["a.txt", "a[1].txt", "a1.txt"]
    assert matching("**/a.txt", names) == ["a.txt", "x/a.txt", "x/y/a.txt"]
    assert matching("./x/**", names) == ["x/a.txt", "x/y/a.txt"]
    assert matching("a[1].txt", names) == ["a[1].txt"]
    assert matching("a[0-9].txt", names) == ["a1.txt"]
