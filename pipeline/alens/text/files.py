"""Which files of a directory are the text of a corpus, and which are left out. Pure: nothing is opened.

In: the `Entry`s of a directory, the configurations of its card, and what was asked for. Out: a `Choice`. The help
of CORPUS and docs/first-run.md give the rule:

1. Files that end in .parquet, .arrow, .jsonl or .txt are text, except hidden files, README.txt, LICENSE.txt, and
   `cache-*.arrow`, which `datasets` leaves beside a table.
2. A file with two names (links) is read once. A text file that is a broken link is refused.
3. A card (README.md), or names that are unmistakably splits (`splits`), choose one split: `train`, or `--split`.
   Otherwise all files are read.
4. Files are read in the order of their paths; those of a card, in the order of its patterns.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from alens.errors import RequestError
from alens.text.dataset_card import CARD, Configuration, matching
from alens.text.file_rows import KINDS
from alens.text.listing import Entry
from alens.text.splits import EVERYTHING, TRAIN, in_order, splits_of

NOT_TEXT = ("readme", "license", "licence")
"""Names of .txt files that are about the text."""

CACHED = "cache-"
"""How files begin that `datasets` leaves beside a table: results of `map` and `filter`, with rows that the table has."""

MOST_NAMED, MOST_KINDS = 3, 8
"""How many files a message names, and how many kinds of files that are left out."""

_CONVERTED = re.compile(r"([^/]+)/([^/]+)/\d{4}\.parquet")
"""How the hub names the files of its branch `refs/convert/parquet`: configuration, split, number."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user asked for."""

    where: str
    """The name of the directory, for messages."""
    split: str | None = None
    """None: `train` where there are splits, otherwise all files."""
    configuration: str | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which files of a directory are read."""

    files: tuple[str, ...]
    """Paths below the directory, in the order they are read."""
    left_out: tuple[str, ...]
    """A phrase for each kind of file that is not read: `2 .zip`."""


def choose(entries: Sequence[Entry], card: Sequence[Configuration], asked: Asked) -> Choice:
    """The files to read.

    Raises `RequestError` when there are none, when they are of several kinds, or when their names do not say which
    are meant.
    """
    left_out: Counter[str] = Counter()
    names = _texts(entries, asked, left_out)
    part = _configuration(card, names, asked) if names else None
    if part is not None:
        within = _within(part, names)
        left_out[f"outside configuration {part.name}"] += len(names) - len(within)
        names = within
    names = _of_split(part, names, asked, left_out) if names else []
    said = _phrases(left_out)
    if not names:
        raise RequestError(_nothing(asked, part, said, entries))
    if len(kinds := _kinds(names)) > 1:
        raise RequestError(
            f"{asked.where} mixes {', '.join(kinds)} files: give a directory with one kind, or a single file"
        )
    return Choice(files=tuple(names), left_out=said)


def _texts(entries: Sequence[Entry], asked: Asked, left_out: Counter[str]) -> list[str]:
    """The names of the text files in order, each file once."""
    texts: list[Entry] = []
    for entry in entries:
        if entry.name == CARD:
            continue
        if (why := _why_not(entry)) is not None:
            left_out[why] += 1
        elif entry.is_file:
            texts.append(entry)
        else:
            what = f"leads to {entry.identity}, which is not there" if entry.is_link else "is not a file"
            raise RequestError(f"{asked.where}/{entry.name} {what}: mend it or take it away")
    own: dict[str, Entry] = {}
    for entry in sorted(texts, key=lambda entry: (entry.is_link, entry.name)):
        own.setdefault(entry.identity, entry)
    left_out["second name of a file"] += len(texts) - len(own)
    return sorted(entry.name for entry in own.values())


def _why_not(entry: Entry) -> str | None:
    """What kind of file it is, where it is not text; None for text. A broken link may have been a folder of texts."""
    path = PurePosixPath(entry.name)
    kind = path.suffix.lower()
    if entry.name.endswith("/"):
        return "link to a folder above it"
    if path.name.startswith("."):
        return f"hidden {kind}".rstrip()
    if kind in KINDS:
        if kind == ".arrow" and path.name.startswith(CACHED):
            return f"{CACHED}*.arrow"
        return path.name if kind == ".txt" and path.stem.lower() in NOT_TEXT else None
    if not kind and entry.is_link and not entry.is_file:
        return None
    return kind or "without an ending"


def _phrases(left_out: Counter[str]) -> tuple[str, ...]:
    """`2 .zip`, most frequent first."""
    counted = [
        (what, count)
        for what, count in sorted(left_out.items(), key=lambda kind: (-kind[1], kind[0]))
        if count
    ]
    said = [f"{count} {what}" for what, count in counted[:MOST_KINDS]]
    if others := sum(count for _, count in counted[MOST_KINDS:]):
        said.append(f"{others} others")
    return tuple(said)


def _configuration(card: Sequence[Configuration], names: Sequence[str], asked: Asked) -> Configuration | None:
    """The configuration that is meant; None where there are none."""
    offered = list(card)
    if not offered and all(_CONVERTED.fullmatch(name) for name in names):
        offered = [Configuration(name=name, folder=name) for name in sorted({n.split("/")[0] for n in names})]
    if not offered:
        if asked.configuration is not None:
            raise RequestError(f"{asked.where} has no configurations: leave out --corpus-config")
        return None
    listed = ", ".join(part.name for part in offered)
    if asked.configuration is not None:
        meant = [part for part in offered if part.name == asked.configuration]
        if not meant:
            raise RequestError(f"{asked.where} has no configuration {asked.configuration!r}: it has {listed}")
    else:
        meant = [part for part in offered if part.is_default] if len(offered) > 1 else offered
    if len(meant) != 1:
        raise RequestError(f"{asked.where} has the configurations {listed}: choose with --corpus-config")
    return meant[0]


def _within(part: Configuration | None, names: list[str]) -> list[str]:
    """The names that belong to a configuration."""
    if part is None:
        return names
    if part.patterns is not None:
        meant = {name for patterns in part.patterns.values() for name in _matches(part, patterns, names)}
        return [name for name in names if name in meant]
    folder = (part.folder or "").strip("/")
    return [name for name in names if not folder or name.startswith(f"{folder}/")]


def _matches(part: Configuration, patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    folder = (part.folder or "").strip("/")
    below = [f"{folder}/{pattern}" if folder else pattern for pattern in patterns]
    return list(dict.fromkeys(name for pattern in below for name in matching(pattern, names)))


def _of_split(
    part: Configuration | None, names: list[str], asked: Asked, left_out: Counter[str]
) -> list[str]:
    """The names of the split that is meant."""
    if part is not None and part.patterns is not None:
        by_split = {split: _matches(part, patterns, names) for split, patterns in part.patterns.items()}
        outside: list[str] = []
    else:
        splits = splits_of(names)
        by_split = {
            split: [name for name, own in zip(names, splits, strict=True) if own == split]
            for split in in_order([split for split in splits if split])
        }
        outside = [name for name, own in zip(names, splits, strict=True) if own is None]
    if asked.split == EVERYTHING or (not by_split and asked.split in (None, TRAIN)):
        return names
    split = asked.split or TRAIN
    if split not in by_split:
        has = f"it has {', '.join(by_split)}" if by_split else "the names of its files do not say their split"
        raise RequestError(
            f"{asked.where} has no split {split!r}: {has}; choose with --split (`all` reads every file)"
        )
    chosen = by_split[split]
    beside = [name for name in outside if set(_kinds([name])) & set(_kinds(chosen))]
    if beside and asked.split is None:
        raise RequestError(
            f"{asked.where} has files of split {split} ({_some(chosen)}) and others beside them ({_some(beside)}): "
            f"say --split {split} or --split all"
        )
    counted = set(chosen)
    for other, its in by_split.items():
        left_out[f"of split {other}"] += len(set(its) - counted)
        counted |= set(its)
    left_out["outside its splits"] += len(outside)
    return chosen


def _kinds(names: Sequence[str]) -> list[str]:
    return sorted({PurePosixPath(name).suffix.lower() for name in names})


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


def _nothing(
    asked: Asked, part: Configuration | None, left_out: Sequence[str], entries: Sequence[Entry]
) -> str:
    message = f"{asked.where} has no .parquet, .arrow, .jsonl or .txt files"
    if part is not None:
        message += f" that its configuration {part.name} names"
    if left_out:
        message += f" (left out: {', '.join(left_out)})"
    if any(entry.name.endswith(".py") for entry in entries):
        message += "; its loading script is not run: `--corpus-revision refs/convert/parquet` of its hub id has the rows"
    return message
