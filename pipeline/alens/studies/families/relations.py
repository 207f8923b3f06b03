"""Relations between words, as pairs: a country and its capital, a verb and its past tense.

In: a file of pairs, or those that alens ships (`relations.json`). Out: `Relation`s, and the tokens of their pairs. A
`.tsv` file holds one relation, called like the file: two words on a line with a tab between them, lines that begin with
`#` left out. A `.json` file holds one relation likewise, as a list of pairs, or several, as an object of such lists by name.
A word counts as it stands within a text, with a space before it, where that is a single token.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.model.within_text import WithinText
from alens.reading.text_file import read_lines

SHIPPED = Path(__file__).with_name("relations.json")
SUFFIXES = (".json", ".tsv")

FEWEST = 5
"""Pairs of single tokens that a relation needs: a head that has one of fewer by chance would look like a find."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Pairs of words, and where they come from."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    source: str
    """The file, for messages."""


@dataclass(frozen=True, kw_only=True)
class RelationTokens:
    """The pairs of a relation whose words are single tokens."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    left_out: int
    """Pairs with a word of several tokens."""

    @property
    def is_enough(self) -> bool:
        """Whether heads can be scored on them."""
        return len(self.sources) >= FEWEST


def read_relations(paths: Iterable[Path]) -> list[Relation]:
    """The relations of some files. Raises `RequestError` for a file that holds none."""
    return [relation for path in paths for relation in _read(Path(path))]


def relation_tokens(relation: Relation, tokenizer: Any) -> RelationTokens:
    """The tokens of a relation."""
    within = WithinText(tokenizer)
    tokens = [(_single(first, within), _single(second, within)) for first, second in relation.pairs]
    single = dict.fromkeys(
        (source, target) for source, target in tokens if source is not None and target is not None
    )
    return RelationTokens(
        sources=tuple(source for source, _ in single),
        targets=tuple(target for _, target in single),
        left_out=len(relation.pairs) - len(single),
    )


def _single(word: str, within: WithinText) -> int | None:
    """The token of a word; None where it has several, or stands for unknown words."""
    word = word.strip()
    ids = within.ids(f" {word}")
    return ids[0] if len(ids) == 1 and within.text(ids).strip().lower() == word.lower() else None


def _read(path: Path) -> list[Relation]:
    if path.suffix not in SUFFIXES:
        raise RequestError(f"{path} is not a file of pairs: give .json or .tsv")
    lines = read_lines(path)
    if path.suffix == ".tsv":
        named: dict[str, Any] = {
            path.stem: [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
        }
    else:
        try:
            body = json.loads("\n".join(lines))
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{path} is not JSON: {error}") from None
        named = body if isinstance(body, dict) else {path.stem: body}
        if not named or not all(name.strip() for name in named):
            raise RequestError(f"{path} has a relation without a name, or none: name each list of pairs")
    return [
        Relation(name=name, pairs=tuple(_pair(pair, name, path) for pair in _list(pairs, name, path)), source=str(path))
        for name, pairs in named.items()
    ]  # fmt: skip


def _list(pairs: Any, name: str, path: Path) -> Sequence[Any]:
    if not isinstance(pairs, list) or not pairs:
        raise RequestError(
            f'{path} holds no pairs of {name!r}: write a list such as [["France", "Paris"], ...]'
        )
    return pairs


def _pair(pair: Any, name: str, path: Path) -> tuple[str, str]:
    if (
        not isinstance(pair, list)
        or len(pair) != 2
        or not all(isinstance(word, str) and word.strip() for word in pair)
    ):
        raise RequestError(f"{path}: {str(pair)[:60]!r} of {name!r} is not a pair of two words")
    return pair[0], pair[1]
