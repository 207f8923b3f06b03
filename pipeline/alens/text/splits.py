"""Which split each file belongs to, where its name says so unmistakably.

In: paths below a directory. Out: the split of each, or None. Three forms count: `train-00000-of-00002` in the name of
a file; a folder called `train`; and files whose whole name is a split (`train.txt`, `test-1.txt`), where a file of
another form is present or all files are named like this, `train` among them. `night train.txt` and `my-eval.txt` do
not count.
"""

import re
from collections.abc import Sequence

TRAIN, EVERYTHING = "train", "all"

_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Names that data sets use for their splits, as in the `datasets` library."""

_SHARD = re.compile(r"(\w[\w.]*)-\d{5,}-of-\d{5,}\b.*")
"""How data sets name the files of a split: `train-00000-of-00002.parquet`."""

_NUMBERED = re.compile(r"([a-z]+)(?:[-_.]\d+)?")


def splits_of(names: Sequence[str]) -> list[str | None]:
    """The split of each name; None where the name does not say it."""
    by_shard = [_by_shard(name) for name in names]
    if not any(word in _WORDS for word in by_shard):
        by_shard = [None] * len(names)  # `novels-00000-of-00003` alone does not name a split
    certain = [
        _by_folder(name) if word is None else _WORDS.get(word, word)
        for word, name in zip(by_shard, names, strict=True)
    ]
    called = [_by_name(name) for name in names]
    if any(certain) or (TRAIN in called and all(called)):
        return [own or name for own, name in zip(certain, called, strict=True)]
    return [None] * len(names)


def in_order(splits: Sequence[str]) -> list[str]:
    """Each split once: train, validation and test first."""
    known = list(dict.fromkeys(_WORDS.values()))
    return sorted(
        set(splits), key=lambda split: (known.index(split) if split in known else len(known), split)
    )


def _by_shard(name: str) -> str | None:
    match = _SHARD.fullmatch(name.rpartition("/")[2])
    return match[1] if match else None


def _by_folder(name: str) -> str | None:
    """The split that the innermost such folder is called by."""
    folders = reversed(name.lower().split("/")[:-1])
    return next((_WORDS[folder] for folder in folders if folder in _WORDS), None)


def _by_name(name: str) -> str | None:
    match = _NUMBERED.fullmatch(name.rpartition("/")[2].rpartition(".")[0].lower())
    return _WORDS.get(match[1]) if match else None
