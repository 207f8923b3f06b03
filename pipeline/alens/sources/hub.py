"""The one module that fetches from the Hugging Face hub: an id or an address becomes a local directory.

In: a repository id and the file patterns that are needed. Out: a snapshot directory in the hub cache and its commit;
what goes wrong becomes one clear line. Only what was asked for by its hub id is fetched, and nothing is sent:
`alens.exchange.upload` does that, and nothing else in alens uses the network. With HF_HUB_OFFLINE=1 only the hub cache
is used.
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
"""The longest name that the hub allows for a repository."""

_ADDRESS = re.compile(r"hf:/+(.*)", re.DOTALL)
"""A `Path` keeps one slash of two."""

_ALMOST = re.compile(
    r"(?:https?:/+(?:www\.)?(?:huggingface\.co|hf\.co)|hf:)(?:/+|$)(.*)", re.DOTALL | re.IGNORECASE
)
"""What a browser shows, and other texts that resemble an address."""


def looks_like_id(text: str) -> bool:
    """Whether `text` has the form of a hub id: `name` or `owner/name`."""
    return _ID.fullmatch(text) is not None


def check_repository(name: str) -> None:
    """Raises `RequestError` unless `name` can be a repository `OWNER/NAME`."""
    fits = _OWNED.fullmatch(name) is not None and len(name) <= MOST_CHARACTERS
    if not fits or "--" in name or ".." in name or name.endswith(".git"):
        raise RequestError(
            f"{name!r} is not the name of a repository: give OWNER/NAME, of letters, digits, single '-', '_' and '.'"
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
    """`path` as an address of the hub, given as text or `Path`; None for a path of this machine.

    Raises `RequestError` for a malformed address.
    """
    matched = _ADDRESS.fullmatch(str(path))
    if matched is None:
        if (almost := _ALMOST.fullmatch(str(path))) is not None:
            repository = "/".join(almost[1].split("/")[:2])
            raise RequestError(
                f"{path} is not an address: write hf://{repository if _OWNED.fullmatch(repository) else 'OWNER/NAME'}"
            )
        return None
    repository, at, revision = matched[1].partition("@")
    try:
        check_repository(repository)
    except RequestError as error:
        raise RequestError(f"{error}, behind hf://") from None
    if at and not is_revision(revision):
        raise RequestError(
            f"{revision!r} is not a revision: give hf://{repository}@REVISION, a branch, tag or commit"
        )
    return Address(repository=repository, revision=revision or None)


def check_local(out: Path | str) -> None:
    """Raises `RequestError` where `out`, which is to be written, is an address of the hub."""
    if (on_hub := address(out)) is not None:
        raise RequestError(f"{on_hub} is on the hub: write to a directory, then `alens publish` it")


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

    `asked` is the address by which the user named it, for error messages. With `local_only`, only the hub cache is
    used.

    Raises `RequestError` when the hub is out of reach and the hub cache has no copy, or when the hub does not have
    this repository or revision; `RunError` when the hub cache cannot be written to and has no copy.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    from alens.sources.fetch_progress import FetchLines

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
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HFValidationError,
        HfHubHTTPError,
        transport_error(),
        ConnectionError,
    ) as error:
        why = _refusal(error, repository, kind, revision, asked)
        raise RequestError(why or _absent(error, repository, kind, revision, asked, local_only)) from None
    except OSError as error:  # users of a shared hub cache may only be able to read it
        what = f"cannot write to the hub cache {constants.HF_HUB_CACHE} ({error.strerror or error})"
        try:
            folder, commit = snapshot(
                repository, kind=kind, revision=revision, patterns=patterns, asked=asked, local_only=True
            )
        except RequestError:
            at = f" at {revision}" if revision else ""
            raise RunError(
                f"{what}, and it has no copy of {repository}{at}: set HF_HOME to a place of your own, or have it fetched "
                f"there with `{download_command(repository, kind=kind, revision=revision)}`"
            ) from None
        log.warning(f"{what}: taking the copy of {repository} that it has, of commit {commit[:12]}")
    return folder, folder.name


def _refusal(
    error: Exception, repository: str, kind: str, revision: str | None, asked: Address | None
) -> str | None:
    """What the hub refuses, in a line; None where it could not be reached."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return f"{kind} {repository} is gated: accept its terms on the hub and run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        other = (
            "and no such file or directory here"
            if asked is None
            else "or it is private: check the name, or run `hf auth login`"
        )
        return f"there is no {kind} {repository} on the hub, {other}"
    if isinstance(error, RevisionNotFoundError):
        return f"{kind} {repository} has no revision {revision} on the hub"
    if isinstance(error, HFValidationError):
        return f"{repository} is not the name of a {kind} on the hub"
    return None


def _absent(
    error: Exception,
    repository: str,
    kind: str,
    revision: str | None,
    asked: Address | None,
    local_only: bool,
) -> str:
    """What was not found in the hub cache, why the hub was not asked, and how to fetch it."""
    from huggingface_hub import constants

    why = f"the hub is out of reach ({cause(error)})"
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    elif local_only:
        why = "nothing is fetched for this"
    at = f" at {revision}" if revision else ""
    what = f"{asked}:" if asked else f"{repository}{at} is not a file or directory here,"
    copy = "whole copy" if asked else "copy"
    return (
        f"{what} the hub cache {constants.HF_HUB_CACHE} has no {copy}, and {why}: "
        f"run `{download_command(repository, kind=kind, revision=revision)}` where there is network"
    )


def download_command(
    repository: str, *files: str, kind: str = "model", revision: str | None = None, more: tuple[str, ...] = ()
) -> str:
    """The command that fetches the repository, quoted for the shell because strangers chose the names."""
    words = ["hf", "download", repository, *files]
    words += ["--repo-type", "dataset"] if kind == "dataset" else []
    words += ["--revision", revision] if revision else []
    return shlex.join([*words, *more])


def transport_error() -> type[Exception]:
    """The base of the errors of the hub's HTTP library: httpx in huggingface_hub 1, httpx2 in 2."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


def cause(error: BaseException) -> str:
    """The name of the first error in the chain: the hub's library wraps the error of the connection."""
    while (inner := error.__cause__ or error.__context__) is not None and type(error).__module__.startswith(
        "huggingface_hub"
    ):
        error = inner
    return type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block the hub's library draws no bars, and logs no warning about what alens reports as an error."""
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
