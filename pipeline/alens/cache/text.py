"""Corpus -> documents: resolves CORPUS to files and reads their text in order.

In: `demo`, `bookcorpus`, a hub dataset id, or a file or directory of .parquet, .jsonl or .txt. Out: a
`CorpusRecord` (hashes of the files on demand: only who makes a plan needs them) and a stream of `Piece`s: a stretch of text and whether a new
document starts with it. Reading and splits are the `datasets` library's, streaming, from local files.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens import demo, hub
from alens.errors import RequestError
from alens.store.durable import sha256_of
from alens.store.schema import CorpusFile, CorpusRecord

BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".txt": "text"}
"""Which `datasets` builder reads which file."""

BOOKCORPUS = ("bookcorpus/bookcorpus", "refs/convert/parquet")
"""Its main branch is a script, which is no longer run; this branch has the same rows as parquet."""

ROWS_A_READ = 2048
ROWS_A_PIECE = 256
"""Rows joined before they are tokenised. Fixed: pieces must not depend on how the text is read."""


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How the rows of a corpus are to be read."""

    split: str = "train"
    """Which split of a dataset; a single file is all of it."""
    text_column: str = "text"
    """The column with the text."""
    document_column: str | None = None
    """A column whose change of value starts a new document."""
    row_documents: bool = False
    """Each row is a document of its own."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset."""

    def __post_init__(self) -> None:
        if self.document_column is not None and self.row_documents:
            raise RequestError("--document-column and --row-documents exclude each other: choose one")


@dataclass(frozen=True)
class Piece:
    """A stretch of one document's text."""

    text: str
    starts_document: bool


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A resolved corpus: its record, and the files in reading order."""

    record: CorpusRecord
    """Without the hashes of the files, until `hashed` adds them."""
    paths: tuple[Path, ...]

    def hashed(self) -> "Corpus":
        """This corpus with the hash of every file: reads them all. Raises `RequestError` when it cannot."""
        return Corpus(
            record=dataclasses.replace(
                self.record,
                files=tuple(
                    file if file.sha256 else dataclasses.replace(file, sha256=_sha256(path))
                    for file, path in zip(self.record.files, self.paths, strict=True)
                ),
            ),
            paths=self.paths,
        )

    def pieces(self) -> Iterator[Piece]:
        """The text in order: rows stripped, empty rows dropped, ROWS_A_PIECE rows joined by a space.

        A document longer than a piece goes on in the next piece, which then starts with the space.
        """
        rows: list[str] = []
        starts, document = True, None
        for text, now in self._rows():
            ends = self.record.row_documents or now != document
            if rows and (ends or len(rows) == ROWS_A_PIECE):
                yield _piece(rows, starts)
                rows, starts = [], ends
            rows.append(text)
            document = now
        if rows:
            yield _piece(rows, starts)

    def _rows(self) -> Iterator[tuple[str, Any]]:
        """(stripped text, document value) of each row that has text."""
        record = self.record
        columns = [record.text_column] + ([record.document_column] if record.document_column else [])
        # `datasets` stumbles over files without a byte.
        paths = tuple(path for path, file in zip(self.paths, record.files, strict=True) if file.bytes)
        if not paths:
            return
        table = _load(paths, record.split)
        with _reading(record.id):
            names = table.column_names or list(next(iter(table.take(1)), {}))
        if not names:
            return
        for column in columns:
            if column not in names:
                flag = "--text-column" if column == record.text_column else "--document-column"
                raise RequestError(
                    f"{record.id} has no column {column!r}: it has {', '.join(names)}; choose with {flag}"
                )
        with _reading(record.id):
            for batch in table.select_columns(columns).iter(batch_size=ROWS_A_READ):
                documents = (
                    batch[record.document_column]
                    if record.document_column
                    else [None] * len(batch[record.text_column])
                )
                for text, document in zip(batch[record.text_column], documents, strict=True):
                    if text is not None and not isinstance(text, str):
                        raise RequestError(
                            f"column {record.text_column!r} of {record.id} holds {type(text).__name__}, not text: choose with --text-column"
                        )
                    if text and (stripped := text.strip()):
                        yield stripped, document


def _piece(rows: list[str], starts: bool) -> Piece:
    return Piece(("" if starts else " ") + " ".join(rows), starts)


def resolve(corpus: str, options: CorpusOptions) -> Corpus:
    """Find the files of CORPUS, without reading them. Raises `RequestError` when they cannot be had."""
    where, revision = _locate(corpus, options.revision)
    paths = _files(where, corpus, options.split)
    if not paths:
        raise RequestError(f"{corpus} has no .parquet, .jsonl or .txt files")
    local = Path(corpus).exists()
    files = []
    for path in paths:
        try:
            files.append(CorpusFile(name=path.name, bytes=path.stat().st_size, sha256=None))
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}") from None
    record = CorpusRecord(
        id=str(Path(corpus).resolve()) if local else corpus,
        revision=revision,
        split=options.split,
        text_column=options.text_column,
        document_column=options.document_column,
        row_documents=options.row_documents,
        files=tuple(files),
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
    if Path(corpus).exists():
        return Path(corpus), None
    repository = corpus
    if corpus == "bookcorpus":
        repository, revision = BOOKCORPUS[0], revision or BOOKCORPUS[1]
    if Path(corpus).suffix in BUILDERS or not hub.looks_like_id(repository):
        raise RequestError(f"{corpus} does not exist: give a file, a directory, a hub dataset id, or `demo`")
    patterns = ["README.md", *[f"*{suffix}" for suffix in BUILDERS]]
    return hub.snapshot(repository, kind="dataset", revision=revision, patterns=patterns)


def _files(where: Path, corpus: str, split: str) -> list[Path]:
    """The files of a split, in the order `datasets` gives them; a single file is its own split."""
    if where.is_file():
        if where.suffix not in BUILDERS:
            raise RequestError(f"{where} is not a .parquet, .jsonl or .txt file")
        return [where]
    import datasets
    from datasets.data_files import EmptyDatasetError

    suffixes = {
        path.suffix
        for path in where.rglob("*")
        if path.suffix in BUILDERS and path.name.lower() != "readme.txt"
    }
    if not suffixes:
        return []
    if len(suffixes) > 1:
        raise RequestError(
            f"{corpus} mixes {', '.join(sorted(suffixes))} files: give a directory with one kind, or a single file"
        )
    try:
        with _reading(corpus):
            found = datasets.load_dataset_builder(str(where)).config.data_files or {}
    except EmptyDatasetError:
        return []
    if split not in found:
        raise RequestError(
            f"{corpus} has no split {split!r}: it has {', '.join(map(str, found))}; choose with --split"
        )
    return [Path(str(name)) for name in found[split]]


def _load(paths: tuple[Path, ...], split: str) -> Any:
    import datasets

    builder = BUILDERS[paths[0].suffix]
    # Without it, `datasets` reads as many rows at once as the first row group has, and fails when it has none.
    options = {"batch_size": ROWS_A_READ} if builder == "parquet" else {}
    with _reading(str(paths[0])):
        return datasets.load_dataset(
            builder,
            data_files={split: [str(path) for path in paths]},
            split=split,
            streaming=True,
            **options,
        )


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turns what `datasets` and pyarrow say of unreadable files into one line."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it logs each error before it raises it
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it misses a card in every README
    try:
        yield
    except (DatasetsError, pa.ArrowException, ValueError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"cannot read text from {what}: {first}") from error
