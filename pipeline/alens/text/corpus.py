"""A corpus: finds its files and reads their text in order.

In: `demo`, `bookcorpus`, a hub dataset id, or a file or directory of .parquet, .arrow, .jsonl or .txt. Out: a
`CorpusRecord` (with hashes of the files only when asked for: they are needed to make a plan) and a stream of `Piece`s,
each a stretch of text and whether a new document starts with it. `files` chooses the files, `file_rows` reads them.
"""

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alens import demo
from alens.errors import RequestError
from alens.job.progress import Report, counted, silent
from alens.sources import hub, local_or_hub
from alens.sources.lfs import check_fetched
from alens.store.durable import sha256_of
from alens.store.schema import CorpusFile, CorpusRecord
from alens.text.dataset_card import CARD, read_card
from alens.text.file_rows import KINDS, kind_of, read_rows
from alens.text.files import Asked, choose
from alens.text.listing import list_files
from alens.text.splits import TRAIN
from alens.text.text_columns import Row, TextColumns

log = logging.getLogger("alens")

BOOKCORPUS = ("bookcorpus/bookcorpus", "refs/convert/parquet")
"""Repository and branch. The main branch holds a script, which is no longer run; this branch has the same rows as parquet."""

PIECE_CHARACTERS = 16_384
"""Characters of a document that are tokenised at once."""


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How the rows of a corpus are to be read."""

    split: str | None = None
    """Split of a data set, or `all` for every file. None: train, where files are split."""
    configuration: str | None = None
    """Configuration of a data set that has several."""
    text_column: str = "text"
    """Column with the text."""
    document_column: str | None = None
    """Column whose change of value starts a new document."""
    row_documents: bool = False
    """Each row is a document of its own."""
    revision: str | None = None
    """Branch, tag or commit of a hub CORPUS."""

    def __post_init__(self) -> None:
        if self.document_column is not None and self.row_documents:
            raise RequestError("--document-column and --row-documents exclude each other: choose one")


class Piece(NamedTuple):
    """A stretch of one document's text."""

    text: str
    starts_document: bool


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A resolved corpus: its record, and the files in reading order."""

    record: CorpusRecord
    """Without the hashes of the files, until `hashed` adds them."""
    paths: tuple[Path, ...]

    def hashed(self, report: Report = silent) -> "Corpus":
        """This corpus with the hash of every file: reads them all. Raises `RequestError` when it cannot."""
        pairs = list(zip(self.record.files, self.paths, strict=True))
        files = tuple(
            file if file.sha256 else dataclasses.replace(file, sha256=_sha256(path))
            for file, path in counted(pairs, report, "hashing the text", "files")
        )
        first: dict[str | None, CorpusFile] = {}
        for file in files:
            if file.bytes and (same := first.setdefault(file.sha256, file)) is not file:
                log.warning(
                    f"{same.name} and {file.name} of {self.record.id} hold the same bytes: that text is read twice"
                )
        return Corpus(record=dataclasses.replace(self.record, files=files), paths=self.paths)

    def pieces(self) -> Iterator[Piece]:
        """The text in order, as `stretches` gives it, in pieces of PIECE_CHARACTERS; the last of a document may be shorter.

        Pieces depend on the text of a document alone, not on how it is divided into rows.
        """
        parts: list[str] = []
        length, starts = 0, True
        for text, starts_document in self.stretches():
            if length and starts_document:
                yield Piece("".join(parts), starts)
                parts, length, starts = [], 0, True
            place = 0
            while length + len(text) - place > PIECE_CHARACTERS:
                cut = place + PIECE_CHARACTERS - length
                yield Piece("".join([*parts, text[place:cut]]), starts)
                parts, length, starts, place = [], 0, False, cut
            parts.append(text[place:])
            length += len(text) - place
        if length:
            yield Piece("".join(parts), starts)

    def stretches(self) -> Iterator[Piece]:
        """The text of the documents in order: rows are stripped and joined by a space, empty rows are dropped.

        A row that follows another of its document begins with that space. A long row gives several stretches.
        """
        is_first, document = True, None
        begun, held = False, ""
        every_row = self.record.row_documents
        for text, now, _, starts in self.file_rows():
            if starts:
                begun = False
            if not text:
                continue
            words = text.rstrip() if begun else text.strip()
            if words:
                starts_document = not begun and (is_first or every_row or now != document)
                lead = held if begun else ("" if starts_document else " ")
                held = text[len(text.rstrip()) :]
                is_first, document, begun = False, now, True
                yield Piece(lead + words, starts_document)
            elif begun:
                held += text

    def file_rows(self) -> Iterator[Row]:
        """The rows of all files as they are, in order."""
        for path in self.paths:
            yield from read_rows(path, TextColumns(self.record.text_column, self.record.document_column))


def resolve(corpus: str, options: CorpusOptions) -> Corpus:
    """Find the files of a corpus, without reading them. The log says which files of a directory are left out.

    Raises `RequestError` when they cannot be found or fetched.
    """
    where, revision = _locate(corpus, options.revision)
    paths = _files(where, corpus, options)
    files = []
    for path in paths:
        check_fetched(path)
        try:
            files.append(CorpusFile(name=path.name, bytes=path.stat().st_size, sha256=None))
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}") from None
    record = CorpusRecord(
        id=corpus if revision is not None or corpus == "demo" else str(Path(corpus).resolve()),
        revision=revision,
        split=options.split or TRAIN,
        text_column=options.text_column,
        document_column=options.document_column,
        row_documents=options.row_documents,
        files=tuple(files),
        configuration=options.configuration,
    )
    return Corpus(record=record, paths=tuple(paths))


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None


def _locate(corpus: str, revision: str | None) -> tuple[Path, str | None]:
    if corpus == "demo":
        return demo.CORPUS, None
    if local_or_hub.is_local(corpus):
        return Path(corpus), None
    repository = corpus
    if corpus == "bookcorpus":
        repository, revision = BOOKCORPUS[0], revision or BOOKCORPUS[1]
    if kind_of(Path(corpus)) or not hub.looks_like_id(repository):
        raise RequestError(f"{corpus} does not exist: give a file, a directory, a hub dataset id, or `demo`")
    patterns = [CARD, *[f"*{kind}" for kind in KINDS]]
    with local_or_hub.searching_hub(corpus, "text"):
        return hub.snapshot(repository, kind="dataset", revision=revision, patterns=patterns)


def _files(where: Path, corpus: str, options: CorpusOptions) -> list[Path]:
    """The files to read, in order. A single file has no splits."""
    if not where.is_dir():
        if kind_of(where) is None:
            raise RequestError(f"{where} is not a .parquet, .arrow, .jsonl or .txt file")
        if options.configuration is not None:
            raise RequestError(f"{where} is a single file, without configurations: leave out --corpus-config")
        return [where]
    asked = Asked(where=corpus, split=options.split, configuration=options.configuration)
    choice = choose(list_files(where), read_card(where), asked)
    if choice.left_out:
        log.info(f"left out of {corpus}: {', '.join(choice.left_out)}")
    return [where / name for name in choice.files]
