"""Names of files -> the split that each is of, where the names say so unmistakably.

In: paths below a directory. Out: the split of each, or None. Three forms say so: `train-00000-of-00002` in the name
of a file; a folder called `train`; and files called by splits alone (`train.txt`, `test-1.txt`), where one of the
other forms is there or all files are called so, `train` among them. `night train.txt` and `my-eval.txt` say nothing.
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
"""What data sets call their splits, as the `datasets` library has it."""

_SHARD = re.compile(r"(\w[\w.]*)-\d{5,}-of-\d{5,}\b.*")
"""How data sets name the files of a split: `train-00000-of-00002.parquet`."""

_NUMBERED = re.compile(r"([a-z]+)(?:[-_.]\d+)?")


def splits_of(names: Sequence[str]) -> list[str | None]:
    """The split of each name; None for one that says none."""
    by_shard = [_by_shard(name) for name in names]
    if not any(word in _WORDS for word in by_shard):
        by_shard = [None] * len(names)  # `novels-00000-of-00003` alone is a name of novels
    found = [
        _by_folder(name) if word is None else _WORDS.get(word, word)
        for word, name in zip(by_shard, names, strict=True)
    ]
    called = [_by_name(name) for name in names]
    if any(found) or (TRAIN in called and all(called)):
        return [own or name for own, name in zip(found, called, strict=True)]
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
    """The innermost folder that is called by a split."""
    folders = reversed(name.lower().split("/")[:-1])
    return next((_WORDS[folder] for folder in folders if folder in _WORDS), None)


def _by_name(name: str) -> str | None:
    match = _NUMBERED.fullmatch(name.rpartition("/")[2].rpartition(".")[0].lower())
    return _WORDS.get(match[1]) if match else None
