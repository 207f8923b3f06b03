"""The one door from the Hugging Face hub: an id or an address becomes a local directory, or one clear line.

In: a repository id and the file patterns that are needed. Out: a snapshot directory in the hub cache and
the commit it stands for. Nothing is fetched that was not asked for by its hub id, and nothing is sent: that is
`alens.exchange.upload`, and nothing else in alens goes to the network. With HF_HUB_OFFLINE=1 only the hub cache
is looked at.
"""

import contextlib
import logging
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alens.errors import RequestError, RunError

log = logging.getLogger("alens")

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_OWNED = re.compile(r"\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
MOST_CHARACTERS = 96
"""Of a repository's name, as the hub has it."""

_ADDRESS = re.compile(r"hf:/+(.*)", re.DOTALL)
"""A `Path` keeps one slash of two."""

_ALMOST = re.compile(
    r"(?:https?:/+(?:www\.)?(?:huggingface\.co|hf\.co)|hf:)(?:/+|$)(.*)", re.DOTALL | re.IGNORECASE
)
"""What a browser shows, and what is near to an address."""


def looks_like_id(text: str) -> bool:
    """Whether `text` has the form of a hub id: `name` or `owner/name`."""
    return _ID.fullmatch(text) is not None


def check_repository(name: str) -> None:
    """Raises `RequestError` unless `name` can be a repository `OWNER/NAME`."""
    fits = _OWNED.fullmatch(name) is not None and len(name) <= MOST_CHARACTERS
    if not fits or "--" in name or ".." in name or name.endswith(".git"):
        raise RequestError(
            f"{name!r} is no name of a repository: give OWNER/NAME, of letters, digits, single '-', '_' and '.'"
        )


def is_revision(text: str) -> bool:
    """Whether `text` can be a branch, tag or commit."""
    return re.fullmatch(r"\w[\w./-]*", text) is not None and ".." not in text


@dataclass(frozen=True, kw_only=True)
class Address:
    """`hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`."""

    repository: str
    revision: str | None

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def address(path: Path | str) -> Address | None:
    """The address that `path` is, also as a `Path`; None for a path of this machine.

    Raises `RequestError` for a wrong one.
    """
    found = _ADDRESS.fullmatch(str(path))
    if found is None:
        if (almost := _ALMOST.fullmatch(str(path))) is not None:
            repository = "/".join(almost[1].split("/")[:2])
            raise RequestError(
                f"{path} is no address: write hf://{repository if _OWNED.fullmatch(repository) else 'OWNER/NAME'}"
            )
        return None
    repository, at, revision = found[1].partition("@")
    try:
        check_repository(repository)
    except RequestError as error:
        raise RequestError(f"{error}, behind hf://") from None
    if at and not is_revision(revision):
        raise RequestError(
            f"{revision!r} is no revision: give hf://{repository}@REVISION, a branch, tag or commit"
        )
    return Address(repository=repository, revision=revision or None)


def check_local(out: Path | str) -> None:
    """Raises `RequestError` for an address where something is to be written."""
    if (found := address(out)) is not None:
        raise RequestError(f"{found} is on the hub: write to a directory, then `alens publish` it")


def snapshot(
    repository: str,
    *,
    kind: str,
    revision: str | None,
    patterns: list[str],
    asked: Address | None = None,
    local_only: bool = False,
) -> tuple[Path, str]:
    """The directory and commit of a hub repository; `kind` is `model` or `dataset`.

    `asked` is the address that it was asked for by, which errors then name. With `local_only`, only the hub cache is
    looked at.

    Raises `RequestError` when the hub is out of reach and the hub cache has no copy, or when the hub has
    no such repository or revision; `RunError` when the hub cache cannot be written to and has no copy.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from alens.sources.fetch_progress import FetchLines

    at = f" at {revision}" if revision else ""
    try:
        with quiet():
            folder = Path(
                snapshot_download(
                    repository,
                    repo_type=kind,
                    revision=revision,
                    allow_patterns=patterns,
                    local_files_only=local_only,
                    tqdm_class=FetchLines,
                )
            )
    except GatedRepoError:
        raise RequestError(
            f"{kind} {repository} is gated: accept its terms on the hub and run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        other = (
            "and no such file or directory here"
            if asked is None
            else "or it is private: check the name, or run `hf auth login`"
        )
        raise RequestError(f"there is no {kind} {repository} on the hub, {other}") from None
    except RevisionNotFoundError:
        raise RequestError(f"{kind} {repository} has no revision {revision} on the hub") from None
    except HFValidationError:
        raise RequestError(f"{repository} is no name of a {kind} on the hub") from None
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HfHubHTTPError,
        transport_error(),
        ConnectionError,
    ) as error:
        why = f"the hub is out of reach ({cause(error)})"
        if constants.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set"
        elif local_only:
            why = "nothing is fetched for this"
        command = download_command(repository, kind=kind, revision=revision)
        absent = (
            f"{repository}{at} is no file or directory here, the hub cache"
            if asked is None
            else f"{asked}: the hub cache"
        )
        raise RequestError(
            f"{absent} {constants.HF_HUB_CACHE} has no{'' if asked is None else ' whole'} copy, and {why}: "
            f"run `{command}` where there is network"
        ) from None
    except OSError as error:  # where the hub cache is shared, its users may only read it
        what = f"cannot write to the hub cache {constants.HF_HUB_CACHE} ({error.strerror or error})"
        try:
            folder, commit = snapshot(
                repository, kind=kind, revision=revision, patterns=patterns, asked=asked, local_only=True
            )
        except RequestError:
            raise RunError(
                f"{what}, and it has no copy of {repository}{at}: set HF_HOME to a place of your own, or have it fetched "
                f"there with `{download_command(repository, kind=kind, revision=revision)}`"
            ) from None
        log.warning(f"{what}: taking the copy of {repository} that it has, of commit {commit[:12]}")
    return folder, folder.name


def download_command(
    repository: str, *files: str, kind: str = "model", revision: str | None = None, more: tuple[str, ...] = ()
) -> str:
    """What to type to fetch it; a word that the shell would take otherwise is quoted, for others chose the names."""
    words = ["hf", "download", repository, *files]
    words += ["--repo-type", "dataset"] if kind == "dataset" else []
    words += ["--revision", revision] if revision else []
    return shlex.join([*words, *more])


def transport_error() -> type[Exception]:
    """What the hub's HTTP library raises: of httpx in huggingface_hub 1, of httpx2 in 2."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


def cause(error: BaseException) -> str:
    """The name of what was first: the hub's library wraps what the connection said."""
    while (inner := error.__cause__ or error.__context__) is not None and type(error).__module__.startswith(
        "huggingface_hub"
    ):
        error = inner
    return type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The hub's library draws bars, and warns of what alens then says in an error."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger = logging.getLogger("huggingface_hub")
    before, had_bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    if had_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(before)
        if had_bars:
            enable_progress_bars()
