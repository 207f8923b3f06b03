"""A few passages of a long text: where they begin, and their tokens.

In: CORPUS, a tokenizer, how many sequences are wanted. Out: the text of one sequence from each passage. Passages are spread evenly
over the text, from a start that the seed draws, and over each side of it where documents are held out. So a long
document gives passages in proportion to its length, and not every short document gives one. The text is read twice,
the first time to measure it; only the passages are tokenised.
Shapes: D documents, T tokens.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.cache.held_out_documents import Division, Lengths, draw, held_out_shards
from alens.errors import StoppedError
from alens.job.progress import Progress, Report, ShouldStop
from alens.store.schema import CacheSettings
from alens.text.corpus import Corpus
from alens.text.joining import MARGIN
from alens.text.packing import TokenStreamWriter
from alens.text.text_tokens import TextTokens

ROOM = 16
"""A text with fewer characters than this for each token wanted is tokenised whole: passages must not meet."""

FIRST_TRY = 5
"""Characters that are tokenised for each token wanted: English has a little more than 4 to a token."""

FURTHER_TRY = 2
"""Further characters for each token wanted, where the first were too few."""

LONGEST_WORD = 4096
"""Characters without a space after which a passage is cut anyway: Chinese has no spaces."""

TOKENS_NEAR_A_CUT = 64
"""A passage that was not cut at a space must have this many tokens more, because the cut may have changed the last."""

STRETCHES_A_REPORT, LONG_STRETCH = 4096, 1 << 15

Parts = list[tuple[int, list[int]]]
"""The tokens of a passage, by document."""


@dataclass(frozen=True, kw_only=True)
class PassagePlan:
    """Where the passages of each side begin, in characters of that side."""

    division: Division
    train_starts: npt.NDArray[np.int64]
    held_out_starts: npt.NDArray[np.int64]


def document_characters(corpus: Corpus, report: Report, should_stop: ShouldStop) -> Lengths:
    """(D,) the length of each document in characters; one document where they are not known. Reads the whole text."""
    lengths = array("q")
    for number, (text, starts_document) in enumerate(corpus.stretches()):
        if _is_due(number, text):
            _check(should_stop)
            report(Progress(stage="measure", done=number, total=None, unit="rows"))
        if starts_document:
            lengths.append(0)
        lengths[-1] += len(text)
    return np.array(lengths, dtype=np.int64)


def plan_passages(
    characters_D: Lengths, settings: CacheSettings, *, documents_known: bool
) -> PassagePlan | None:
    """Where passages begin; None where the text is so short that all of it is tokenised."""
    assert settings.sequences_wanted is not None
    a_shard, total = settings.sequences_per_shard, int(characters_D.sum())
    wanted = settings.sequences_wanted // a_shard * a_shard
    held_out_D = np.zeros(len(characters_D), dtype=np.bool_)
    held_out = held_out_shards(wanted // a_shard) * a_shard if documents_known else 0
    room = ROOM * settings.text_len
    if held_out:
        held_out_D = draw(
            characters_D,
            wanted=max(held_out * room, round(total * held_out / wanted)),
            most=total - (wanted - held_out) * room,
            seed=settings.seed,
        )
        held_out = held_out if held_out_D.any() else 0
    sides = ((~held_out_D, wanted - held_out), (held_out_D, held_out))
    lengths = [int(characters_D[mask].sum()) for mask, _ in sides]
    if any(length < count * room for length, (_, count) in zip(lengths, sides, strict=True)):
        return None
    train, judged = (
        randomness.spread(length, count, settings.seed, randomness.SPREAD, number)
        for number, (length, (_, count)) in enumerate(zip(lengths, sides, strict=True))
    )
    division = Division(
        held_out_D=held_out_D,
        train_sequences=wanted - held_out,
        held_out_sequences=held_out,
        left_out=0,
        spread=True,
    )
    return PassagePlan(division=division, train_starts=train, held_out_starts=judged)


def read_passages(
    plan: PassagePlan,
    text: TextTokens,
    text_len: int,
    writer: TokenStreamWriter,
    report: Report,
    should_stop: ShouldStop,
) -> bool:
    """Write `text_len` tokens of each passage, the text of a sequence; returns whether all of them had enough."""
    total = (len(plan.train_starts) + len(plan.held_out_starts)) * text_len
    report(Progress(stage="tokenise", total=total, unit="tokens"))

    def put(parts: Parts) -> None:
        for document, ids in parts:
            writer.begin_run(document)
            writer.add(np.array(ids, dtype=text.dtype))
        report(Progress(stage="tokenise", done=writer.num_tokens, total=total, unit="tokens"))

    train, held_out = (
        _Cursor(starts.tolist(), text_len, text, put) for starts in (plan.train_starts, plan.held_out_starts)
    )
    document = -1
    for number, (stretch, starts_document) in enumerate(text.corpus.stretches()):
        if _is_due(number, stretch):
            _check(should_stop)
        document += starts_document
        side = held_out if plan.division.held_out_D[document] else train
        side.read(stretch, document, starts_document)
        if train.done and held_out.done:
            break
    train.finish()
    held_out.finish()
    return train.done and held_out.done


def _is_due(number: int, stretch: str) -> bool:
    """Whether it is time for a report: after many stretches, or a long one."""
    return number % STRETCHES_A_REPORT == 0 or len(stretch) >= LONG_STRETCH


def _check(should_stop: ShouldStop) -> None:
    if should_stop():
        raise StoppedError("stopped while tokenising; nothing was written yet, run again to start over")


@dataclass
class _Passage:
    """A passage that is being read: its text, by document."""

    before: str
    """The text before it in its document, at most MARGIN characters."""
    lacks: int
    """How many characters to read before it is tokenised again, at the next space."""
    parts: list[tuple[int, list[str]]] = field(default_factory=list)

    def add(self, text: str, document: int, starts_document: bool) -> None:
        if not self.parts or starts_document:
            self.parts.append((document, []))
        self.parts[-1][1].append(text)
        self.lacks -= len(text)


class _Cursor:
    """Reads one side of the text, stretch after stretch, and gives out each passage once it has enough tokens."""

    def __init__(
        self, starts: list[int], text_len: int, text: TextTokens, put: Callable[[Parts], None]
    ) -> None:
        self._starts, self._next, self._text_len = starts, 0, text_len
        self._text, self._put = text, put
        self._passed = 0
        """The number of characters of the side before this stretch."""
        self._before = ""
        """The last characters of the document before this stretch."""
        self._passage: _Passage | None = None

    @property
    def done(self) -> bool:
        return self._next == len(self._starts)

    def read(self, text: str, document: int, starts_document: bool) -> None:
        """Read the next stretch of the side."""
        if starts_document:
            self.finish()  # the end of a document ends a word, as a space does
            self._before = ""
        place = 0
        while place < len(text) and not self.done:
            if self._passage is None:
                place = self._begin(text, place, starts_document)
                if place >= len(text):
                    break
                before = (self._before + text[max(0, place - MARGIN) : place])[-MARGIN:]
                self._passage = _Passage(before, FIRST_TRY * self._text_len)
            wanted = place + max(0, self._passage.lacks)
            longest = max(place, place + self._passage.lacks + LONGEST_WORD)
            space = text.find(" ", wanted, longest)
            stop = min(longest, len(text)) if space < 0 else space
            self._passage.add(text[place:stop], document, starts_document and place == 0)
            place = stop
            if space >= 0:
                self._try(self._passage, surely=1)
            elif self._passage.lacks <= -LONGEST_WORD:
                self._try(self._passage, surely=TOKENS_NEAR_A_CUT)
        self._passed += len(text)
        self._before = (self._before + text[-MARGIN:])[-MARGIN:]

    def finish(self) -> None:
        """At the end of the text or of a document: give out the passage if it has enough tokens."""
        if self._passage is not None and self._passage.lacks <= 0:
            self._try(self._passage, surely=1)

    def _begin(self, text: str, place: int, starts_document: bool) -> int:
        """Where the next passage begins: at a space, or with the document; the end of `text` if it begins later."""
        place = max(place, self._starts[self._next] - self._passed)
        if place == 0 and starts_document:
            return 0
        space = text.find(" ", place)
        return len(text) if space < 0 else space

    def _try(self, passage: _Passage, surely: int) -> None:
        """Give the passage out if it has at least `surely` tokens more than wanted, because the last ones may have
        been cut."""
        parts: Parts = []
        left = self._text_len
        texts = ["".join(texts) for _, texts in passage.parts]
        encoded = [self._text.encode_after(passage.before, texts[0]), *self._text.encode(texts[1:])]
        for (document, _), ids in zip(passage.parts, encoded, strict=True):
            if parts:
                ids = [self._text.separator, *ids]
            if left > 0:
                parts.append((document, ids[:left]))
            left -= len(ids)
        if left > -surely:
            passage.lacks = FURTHER_TRY * self._text_len
            return
        self._put(parts)
        self._passage, self._next = None, self._next + 1
