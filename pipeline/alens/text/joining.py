"""The tokens of whole documents from pieces of them: a document is never tokenised at once.

In: `Piece`s in order, and a tokenizer. Out: the tokens of each piece, as they are among those of its document. A piece is
tokenised in a `_PieceWindow`, with MARGIN characters of its document before and after it. Where two pieces meet, the
MARGIN characters on both sides are tokenised once more, with offsets. These tokens begin where the later window begins and
end where the earlier one ends, so they can be laid beside both. Where all three agree for half a MARGIN on both sides, it
does not matter to the tokens there that the text is cut further away: the windows are joined there. Elsewhere the two
pieces become one, and the next meeting is tried. So nothing is assumed about a tokenizer
(docs/decisions/0033-text-in-pieces.md).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alens.text.corpus import Piece

log = logging.getLogger("alens")

MARGIN = 256
"""Characters of a document that a window has beyond its piece, on each side."""

MOST_CHARACTERS = 1 << 18
"""Two pieces become one where both together are at most this long."""


@dataclass
class _Joint:
    """Where a piece and the next one of its document meet: the tokens of the text around it."""

    ids: list[int]
    first: int
    """The first token that the earlier window must have as well."""
    cut: int
    """The first token of the later piece."""
    stop: int
    """The first token that the later window need not have."""


@dataclass(kw_only=True)
class _PieceWindow:
    """A piece, with the text around it in its document."""

    piece: Piece
    before: str
    after: str
    """Empty after the last piece of a document."""
    ids: list[int]
    joint: _Joint | None
    """Where the next piece begins; None after the last piece of a document."""
    joined: _Joint | None = None
    """Where it was joined to the piece before it."""

    @property
    def text(self) -> str:
        return self.before + self.piece.text + self.after

    def tokens(self) -> list[int]:
        """The tokens of the piece, without those around it."""
        head = 0 if self.joined is None else self.joined.cut
        tail = 0 if self.joint is None else len(self.joint.ids) - self.joint.cut
        return self.ids[head : len(self.ids) - tail]


class Joiner:
    """Tokenises pieces and joins their tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._has_warned = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text by itself, on all cores."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_after(self, before: str, text: str) -> list[int]:
        """The tokens of `text` where it follows `before`: those that begin in it."""
        encoding = self._tokenizer.encode(before + text, add_special_tokens=False)
        starts = [start for start, _ in encoding.offsets]
        first = next((token for token, start in enumerate(starts) if start >= len(before)), len(starts))
        return list(encoding.ids[first:])

    @cached_property
    def begins_alike(self) -> bool:
        """Whether a text that begins with a space has the same tokens by itself as after another text. This is false
        for Llama 2, which puts a space before every text."""
        whole, *parts = self.encode(["It is, it was.", "It", " is,", " it", " was."])
        return whole == [token for part in parts for token in part]

    def tokens(self, batches: Iterator[list[Piece]]) -> Iterator[tuple[bool, list[int]]]:
        """For each piece whether a document starts with it, and its tokens. Two pieces may have become one."""
        earlier: _PieceWindow | None = None
        for window in self._windows(batches):
            if earlier is None or window.piece.starts_document:
                if earlier is not None:
                    yield earlier.piece.starts_document, earlier.tokens()
                earlier = window
                continue
            assert earlier.joint is not None
            if _agree(earlier, earlier.joint, window):
                window.joined = earlier.joint
            elif len(earlier.piece.text) + len(window.piece.text) <= MOST_CHARACTERS:
                earlier = self._merged(earlier, window)
                continue
            else:
                self._cut_between(earlier, window)
            yield earlier.piece.starts_document, earlier.tokens()
            earlier = window
        if earlier is not None:
            yield earlier.piece.starts_document, earlier.tokens()

    def _windows(self, batches: Iterator[list[Piece]]) -> Iterator[_PieceWindow]:
        """The window of each piece, tokenised a batch at a time. The last piece of a batch waits for the next batch."""
        before: Piece | None = None
        last: list[Piece] = []
        for batch in batches:
            pieces = [*last, *batch]
            if len(pieces) > 1:
                yield from self._encoded(before, pieces[:-1], pieces[-1])
                before = pieces[-2]
            last = pieces[-1:]
        if last:
            yield from self._encoded(before, last, None)

    def _encoded(
        self, before: Piece | None, pieces: list[Piece], following: Piece | None
    ) -> Iterator[_PieceWindow]:
        """The windows of `pieces`, which stand between the pieces `before` and `following`."""
        befores = [
            "" if earlier is None or piece.starts_document else earlier.text[-MARGIN:]
            for earlier, piece in zip([before, *pieces[:-1]], pieces, strict=True)
        ]
        afters = [
            "" if later is None or later.starts_document else later.text[:MARGIN]
            for later in (*pieces[1:], following)
        ]
        parts = list(zip(befores, pieces, afters, strict=True))
        encoded = self.encode([text + piece.text + after for text, piece, after in parts])
        joints = self._joints([(piece.text[-MARGIN:], after) for _, piece, after in parts if after])
        for (text_before, piece, after), ids in zip(parts, encoded, strict=True):
            joint = next(joints) if after else None
            yield _PieceWindow(piece=piece, before=text_before, after=after, ids=ids, joint=joint)

    def _joints(self, sides: list[tuple[str, str]]) -> Iterator[_Joint]:
        """The joint of each pair of texts."""
        if not sides:
            return
        texts = [before + after for before, after in sides]
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        for (before, _), encoding in zip(sides, encodings, strict=True):
            starts = [start for start, _ in encoding.offsets]
            places = [len(before) - MARGIN // 2, len(before), len(before) + MARGIN // 2]
            first, cut, stop = (
                next((token for token, start in enumerate(starts) if start >= place), len(starts))
                for place in places
            )
            yield _Joint(encoding.ids, first, cut, stop)

    def _merged(self, earlier: _PieceWindow, later: _PieceWindow) -> _PieceWindow:
        """Both pieces as one."""
        earlier.piece = Piece(earlier.piece.text + later.piece.text, earlier.piece.starts_document)
        earlier.after, earlier.joint = later.after, later.joint
        self._encode_again(earlier)
        return earlier

    def _cut_between(self, earlier: _PieceWindow, later: _PieceWindow) -> None:
        """Cut a text between two pieces that should have been joined: each is tokenised without the text on the other side."""
        self._warn()
        earlier.after, earlier.joint, later.before = "", None, ""
        self._encode_again(earlier)
        self._encode_again(later)

    def _encode_again(self, window: _PieceWindow) -> None:
        """Tokenise a window again whose text has changed. It stays joined to the piece before it, or is cut from it."""
        (window.ids,) = self.encode([window.text])
        if window.joined is not None and not _begins_as(window, window.joined):
            self._warn()
            window.before, window.joined = "", None
            (window.ids,) = self.encode([window.text])

    def _warn(self) -> None:
        if not self._has_warned:
            log.warning(
                f"tokens of a document depend on more than {MOST_CHARACTERS:,} characters around them: it was cut, "
                "and the tokens next to a cut may not be those of the whole document"
            )
            self._has_warned = True


def _agree(earlier: _PieceWindow, joint: _Joint, later: _PieceWindow) -> bool:
    """Whether both windows have the tokens of the joint around the place where their pieces meet."""
    common = len(joint.ids) - joint.first
    return (
        joint.first < joint.cut
        and earlier.ids[len(earlier.ids) - common :] == joint.ids[joint.first :]
        and _begins_as(later, joint)
    )


def _begins_as(window: _PieceWindow, joint: _Joint) -> bool:
    return window.ids[: joint.stop] == joint.ids[: joint.stop]
