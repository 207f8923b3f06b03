"""Which files of a directory are its text: a table of cases, and what holds for any names."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alens.errors import RequestError
from alens.text.dataset_card import Configuration
from alens.text.files import Asked, Choice, choose
from alens.text.listing import Entry
from alens.text.splits import splits_of

NOVELS = ["emma.txt", "persuasion.txt", "pride.txt"]


def chosen(
    names: Sequence[str | Entry],
    card: Sequence[Configuration] = (),
    split: str | None = None,
    configuration: str | None = None,
) -> Choice:
    entries = [name if isinstance(name, Entry) else Entry(name=name, identity=f"/c/{name}") for name in names]
    return choose(entries, card, Asked(where="DIR", split=split, configuration=configuration))


def link(name: str, to: str, *, is_file: bool = True) -> Entry:
    return Entry(name=name, identity=to, is_link=True, is_file=is_file)


@pytest.mark.parametrize(
    "name",
    [
        "night train.txt", "a photo of test tubes.txt", "my-eval.txt", "train.txt", "test.txt", "train-1.txt", "dev.txt",
        "the-train-00001-of-00002.txt", "c4-train.00000-of-01024.txt", "novels-00000-of-00002.txt", "trains/x.txt",
        "night train/x.txt", "book[1].txt", "a::b.txt", "validated.txt",
    ],
)  # fmt: skip
def test_one_name_hides_no_other(name: str) -> None:
    assert chosen([*NOVELS, name]) == Choice(files=tuple(sorted([*NOVELS, name])), left_out=())
    assert chosen([name]).files == (name,)


TRAIN = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]


@pytest.mark.parametrize(
    ("names", "split", "files", "left_out"),
    [
        ([*TRAIN, "valid-00000-of-00001.parquet"], None, TRAIN, ("1 of split validation",)),
        ([*TRAIN, "valid.parquet"], None, TRAIN, ("1 of split validation",)),
        ([*TRAIN, "unsupervised-00000-of-00001.parquet"], None, TRAIN, ("1 of split unsupervised",)),
        ([*TRAIN, "unsupervised-00000-of-00001.parquet"], "unsupervised", ["unsupervised-00000-of-00001.parquet"], ("2 of split train",)),
        ([*TRAIN, "vocabulary.txt", "README.md"], None, TRAIN, ("1 outside its splits",)),
        (["data/" + TRAIN[0], "data/test-00000-of-00001.parquet"], None, ["data/" + TRAIN[0]], ("1 of split test",)),
        (["train/a.txt", "train/b/c.txt", "test/a.txt"], None, ["train/a.txt", "train/b/c.txt"], ("1 of split test",)),
        (["Train/a.txt", "Dev/a.txt"], "validation", ["Dev/a.txt"], ("1 of split train",)),
        (["x/train/a.txt", "x/test/a.txt"], "test", ["x/test/a.txt"], ("1 of split train",)),
        (["train/a.txt", "test/a.txt", "c.txt"], "train", ["train/a.txt"], ("1 of split test", "1 outside its splits")),
        (["train/a.txt", "test/a.txt", "c.txt"], "all", ["c.txt", "test/a.txt", "train/a.txt"], ()),
        (["train.jsonl", "dev.jsonl", "test.jsonl"], None, ["train.jsonl"], ("1 of split test", "1 of split validation")),
        (["train-0.parquet", "train-1.parquet", "test-0.parquet"], None, ["train-0.parquet", "train-1.parquet"], ("1 of split test",)),
        (["test.txt", "validation.txt"], None, ["test.txt", "validation.txt"], ()),
        (NOVELS, "train", NOVELS, ()),
        (["default/train/0000.parquet", "default/test/0000.parquet"], None, ["default/train/0000.parquet"], ("1 of split test",)),
        ([f"plain_text/train/{n:04d}.parquet" for n in (1, 0)], None, [f"plain_text/train/{n:04d}.parquet" for n in (0, 1)], ()),
    ],
)  # fmt: skip
def test_splits(names: list[str], split: str | None, files: list[str], left_out: tuple[str, ...]) -> None:
    assert chosen(names, split=split) == Choice(files=tuple(files), left_out=left_out)


@pytest.mark.parametrize(
    ("others", "left_out"),
    [
        (["old.zip", "older.zip", "emma.txt.gz", "pride.txt.bak", "pride.txt~"], ("2 .zip", "1 .bak", "1 .gz", "1 .txt~")),
        (["README.txt", "readme.txt", "LICENSE.txt", "Licence.TXT"], ("1 LICENSE.txt", "1 Licence.TXT", "1 README.txt", "1 readme.txt")),
        (["README.md", "notes.md", "t.csv", "t.json", "cover.PNG", "Makefile"], ("1 .csv", "1 .json", "1 .md", "1 .png", "1 without an ending")),
        ([".hidden.txt", "._emma.txt", ".gitattributes"], ("2 hidden .txt", "1 hidden")),
        ([link("again.txt", "/c/emma.txt"), link("0.txt", "/c/emma.txt")], ("2 second name of a file",)),
        ([link("up/", "/", is_file=False)], ("1 link to a folder above it",)),
        ([link("old.zip", "/gone", is_file=False)], ("1 .zip",)),
        ([f"a.{n:02d}" for n in range(10)], (*(f"1 .{n:02d}" for n in range(8)), "2 others")),
    ],
)  # fmt: skip
def test_what_is_not_text_is_left_out_and_said(others: list[str | Entry], left_out: tuple[str, ...]) -> None:
    assert chosen([*NOVELS, *others]) == Choice(files=tuple(NOVELS), left_out=left_out)


def test_a_file_is_read_by_its_own_name_or_else_by_its_first() -> None:
    far = [link("b.txt", "/far"), link("a.txt", "/far")]
    assert chosen(far) == Choice(files=("a.txt",), left_out=("1 second name of a file",))
    assert chosen([link("a.txt", "/c/z.txt"), "z.txt"]).files == ("z.txt",)


def test_endings_in_capitals_are_text() -> None:
    assert chosen(["EMMA.TXT", "pride.txt"]).files == ("EMMA.TXT", "pride.txt")


CARD = (
    Configuration(name="small", patterns={"train": ("small/*.txt",), "test": ("held/out*.txt",)}),
    Configuration(name="large", patterns={"train": ("large/**",)}),
)
PARTS = ["small/b.txt", "small/a.txt", "small/x/c.txt", "held/out1.txt", "large/x/d.txt", "notes.txt"]


def test_a_card_says_configuration_and_split() -> None:
    assert chosen(PARTS, CARD, configuration="small") == Choice(
        files=("small/a.txt", "small/b.txt"),
        left_out=("3 outside configuration small", "1 of split test"),
    )
    assert chosen(PARTS, CARD, split="test", configuration="small").files == ("held/out1.txt",)
    assert chosen(PARTS, CARD, configuration="large").files == ("large/x/d.txt",)


def test_the_order_of_a_cards_patterns_is_kept_and_a_file_is_read_once() -> None:
    card = [Configuration(name="default", patterns={"train": ("b.txt", "*.txt")})]
    assert chosen(["a.txt", "b.txt", "c.txt"], card).files == ("b.txt", "a.txt", "c.txt")


def test_a_card_that_names_a_file_means_it_whatever_is_in_its_name() -> None:
    card = [Configuration(name="default", patterns={"train": ("book[1].txt",)})]
    assert chosen(["book[1].txt", "book1.txt"], card).files == ("book[1].txt",)


def test_the_default_of_several_configurations_is_read() -> None:
    card = [Configuration(name="a", folder="a"), Configuration(name="b", folder="b", is_default=True)]
    assert chosen(["a/1.txt", "b/1.txt"], card).files == ("b/1.txt",)


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        ([], {}, "DIR has no .parquet, .arrow, .jsonl or .txt files"),
        (["a.csv", "b.zip"], {}, "files (left out: 1 .csv, 1 .zip)"),
        (["README.md", "bookcorpus.py"], {}, "its loading script is not run: `--corpus-revision refs/convert/parquet`"),
        (["a.txt", "b.jsonl"], {}, "DIR mixes .jsonl, .txt files: give a directory with one kind, or a single file"),
        (["train/a.txt", "c.txt"], {}, "DIR has files of split train (train/a.txt) and others beside them (c.txt): say --split train or --split all"),
        (["test/a.txt"], {}, "DIR has no split 'train': it has test; choose with --split"),
        (NOVELS, {"split": "test"}, "DIR has no split 'test': the names of its files do not say their split"),
        (NOVELS, {"configuration": "x"}, "DIR has no configurations: leave out --corpus-config"),
        (PARTS, {"card": CARD}, "DIR has the configurations small, large: choose with --corpus-config"),
        (PARTS, {"card": CARD, "configuration": "x"}, "DIR has no configuration 'x': it has small, large"),
        (["a/train/0000.parquet", "b/train/0000.parquet"], {}, "DIR has the configurations a, b: choose with --corpus-config"),
        (["a.txt"], {"card": [Configuration(name="x", folder="b")]}, "files that its configuration x names (left out: 1 outside configuration x)"),
        (["a.txt", link("b.txt", "/gone", is_file=False)], {}, "DIR/b.txt leads to /gone, which is not there: mend it or take it away"),
        (["a.txt", link("more", "/gone", is_file=False)], {}, "DIR/more leads to /gone, which is not there"),
        (["a.txt", Entry(name="p.txt", identity="p", is_file=False)], {}, "DIR/p.txt is not a file"),
    ],
)  # fmt: skip
def test_what_is_not_one_text_is_refused(names: list[str], options: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=re.escape(says)):
        chosen(names, **options)  # type: ignore[arg-type]


WORDS = st.sampled_from(
    ["train", "test", "valid", "a", "night train", "README", ".b", "train-00000-of-00002", "x[1]"]
)
ENDINGS = st.sampled_from([".txt", ".TXT", ".zip", "", ".txt.gz"])
PATHS = st.builds(lambda folders, word, end: "/".join([*folders, word]) + end, st.lists(WORDS, max_size=2), WORDS, ENDINGS)  # fmt: skip


@given(st.lists(PATHS, unique=True), st.sampled_from([None, "train", "test", "all"]), st.randoms())
def test_every_file_is_read_once_or_counted(names: list[str], split: str | None, random: object) -> None:
    """The order of the listing does not matter, and only files of the split that was asked for are read."""
    try:
        choice = chosen(names, split=split)
    except RequestError:
        return
    assert len(set(choice.files)) == len(choice.files) and set(choice.files) <= set(names)
    assert len(choice.files) + sum(int(phrase.split()[0]) for phrase in choice.left_out) == len(names)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert chosen(names, split=split) == choice
    said = splits_of(choice.files)
    if split != "all":
        assert len(set(said)) == 1 and said[0] in (None, split or "train")


@given(st.lists(st.from_regex(r"[a-z]{1,12}( [a-z]{1,8})?", fullmatch=True), unique=True, min_size=1))
def test_texts_with_a_novel_among_them_are_all_read(words: list[str]) -> None:
    names = sorted(
        {f"{word}.txt" for word in [*words, "emma"]} - {"readme.txt", "license.txt", "licence.txt"}
    )
    assert chosen(names) == Choice(files=tuple(names), left_out=())
