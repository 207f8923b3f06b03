"""The one door to the Hugging Face hub: an id becomes a local directory, or one clear line; files become a commit.

In: a repository id and the file patterns that are needed. Out: a snapshot directory in the hub cache and
the commit it stands for. Or in: files, and a repository of one's own. Out: one commit. Nothing else in alens goes
to the network, nothing is fetched that was not asked for by its hub id, and nothing is sent but by `upload`; with
HF_HUB_OFFLINE=1 only the hub cache is looked at.
"""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alens.errors import RequestError, RunError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_ADDRESS = re.compile(r"hf:/+(.*)", re.DOTALL)
"""A `Path` keeps one slash of two."""

OWN_BY_RIGHT = frozenset({".gitattributes", "README.md", "LICENSE"})
"""What a repository may hold before the first upload."""


def looks_like_id(text: str) -> bool:
    """Whether `text` has the form of a hub id: `name` or `owner/name`."""
    return _ID.fullmatch(text) is not None


def check_repository(name: str) -> None:
    """Raises `RequestError` unless `name` can be a repository `OWNER/NAME`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        if name.count("/") == 1:
            return
    except HFValidationError:
        pass
    raise RequestError(
        f"{name!r} is no name of a repository: give OWNER/NAME, of letters, digits, single '-', '_' and '.'"
    )


# Reading


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
        return None
    repository, at, revision = found[1].partition("@")
    try:
        check_repository(repository)
    except RequestError as error:
        raise RequestError(f"{error}, behind hf://") from None
    if at and not _is_revision(revision):
        raise RequestError(
            f"{revision!r} is no revision: give hf://{repository}@REVISION, a branch, tag or commit"
        )
    return Address(repository=repository, revision=revision or None)


def check_local(out: Path | str) -> None:
    """Raises `RequestError` for an address where something is to be written."""
    if (found := address(out)) is not None:
        raise RequestError(f"{found} is on the hub: write to a directory, then `alens publish` it")


def snapshot(
    repository: str, *, kind: str, revision: str | None, patterns: list[str], asked: Address | None = None
) -> tuple[Path, str]:
    """The directory and commit of a hub repository; `kind` is `model` or `dataset`.

    `asked` is the address that it was asked for by, which errors then name.

    Raises `RequestError` when the hub is out of reach and the hub cache has no copy, or when the hub has
    no such repository or revision.
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

    at = f" at {revision}" if revision else ""
    try:
        with _one_line():
            folder = Path(
                snapshot_download(repository, repo_type=kind, revision=revision, allow_patterns=patterns)
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
        _transport_error(),
        ConnectionError,
    ) as error:
        why = (
            "HF_HUB_OFFLINE is set"
            if constants.HF_HUB_OFFLINE
            else f"the hub is out of reach ({_cause(error)})"
        )
        fetch = (
            f"hf download {repository}"
            + (" --repo-type dataset" if kind == "dataset" else "")
            + (f" --revision {revision}" if revision else "")
        )
        absent = (
            f"{repository}{at} is no file or directory here, the hub cache"
            if asked is None
            else f"{asked}: the hub cache"
        )
        raise RequestError(
            f"{absent} {constants.HF_HUB_CACHE} has no{'' if asked is None else ' whole'} copy, and {why}: "
            f"run `{fetch}` where there is network"
        ) from None
    return folder, folder.name


def _transport_error() -> type[Exception]:
    """What the hub's HTTP library raises: of httpx in huggingface_hub 1, of httpx2 in 2."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")  # type: ignore[return-value]  # an exception, always


def _cause(error: BaseException) -> str:
    """The name of what was first: the hub's library wraps what the connection said."""
    while (inner := error.__cause__ or error.__context__) is not None and type(error).__module__.startswith(
        "huggingface_hub"
    ):
        error = inner
    return type(error).__name__


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """The hub's library warns of what alens then says in an error."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


# Writing


def has_token() -> bool:
    """Whether this machine has a token of the hub; whether the hub takes it is not asked."""
    from huggingface_hub import get_token

    return get_token() is not None


def check_can_upload(revision: str | None) -> None:
    """Raises `RequestError` where an upload cannot even begin: asked before the work, without network."""
    from huggingface_hub import constants

    if revision is not None and not _is_revision(revision):
        raise RequestError(f"{revision!r} is no name of a branch; nothing was sent")
    if constants.HF_HUB_OFFLINE:
        raise RequestError("HF_HUB_OFFLINE is set: unset it to upload; nothing was sent")
    if not has_token():
        raise RequestError(
            "there is no token of the hub: run `hf auth login`, or set HF_TOKEN; nothing was sent"
        )


def _is_revision(text: str) -> bool:
    return re.fullmatch(r"\w[\w./-]*", text) is not None and ".." not in text


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What an upload did."""

    commit: str
    """The commit that holds the files."""
    url: str
    private: bool
    """As the repository is; one that was there stays as it is."""
    changed: bool
    """False where the repository held just these files: then no commit was made."""
    replaced: tuple[str, ...]
    """Files that were there before, also those that did not change; the history keeps what they were."""


def upload(
    repository: str,
    files: Mapping[str, Path | bytes],
    *,
    private: bool,
    revision: str | None,
    message: str,
    mark: str,
) -> Uploaded:
    """Put `files` (path in the repository -> file or content) into a model repository as one commit.

    The repository and the branch `revision` are made where they are not there. A repository that holds other
    things, and no file `mark`, is left alone.

    Raises `RequestError` for a name, a token or a repository that will not do, `RunError` when the hub or the
    connection fails; it says what was committed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    check_repository(repository)
    check_can_upload(revision)
    api = HfApi(library_name="alens")
    branch = revision or constants.DEFAULT_REVISION
    done = "nothing was committed"
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        found = api.model_info(repository, revision=branch)
        there = {file.rfilename for file in found.siblings or ()}
        _check_target(repository, private, bool(found.private), there, mark)
        operations = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=source) for path, source in files.items()
        ]
        api.preupload_lfs_files(repository, operations, revision=branch, free_memory=False)
        done = f"the commit is there whole or not at all: look at {constants.ENDPOINT}/{repository}/commits/{branch}"
        with _one_line():
            commit = api.create_commit(
                repository, operations, commit_message=message, revision=branch, parent_commit=found.sha
            )
    except HfHubHTTPError as error:
        raise _refusal(error, repository, done) from None
    except (_transport_error(), OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"the upload to {repository} failed ({_cause(error)}: {_first_line(error)}); {done}; run the same "
            "command again, what is there is not sent twice"
        ) from None
    return Uploaded(
        commit=commit.oid,
        url=f"{constants.ENDPOINT}/{repository}",
        private=bool(found.private),
        changed=commit.oid != found.sha,
        replaced=tuple(sorted(there & files.keys())),
    )


def _check_target(repository: str, private: bool, is_private: bool, there: set[str], mark: str) -> None:
    if private and not is_private:
        raise RequestError(
            f"{repository} is there and public, and --private was asked for: make it private on the hub first, or "
            "name another repository; nothing was sent"
        )
    others = sorted(there - OWN_BY_RIGHT)
    if others and mark not in there:
        named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise RequestError(
            f"{repository} holds something else ({named}) and no {mark}: name another repository; nothing was sent"
        )


def _refusal(error: Exception, repository: str, done: str) -> RequestError | RunError:
    """An answer of the hub that is no success, in one line."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 401:
        return RequestError(
            "the hub does not take the token (401): run `hf auth login` with a token that may write, or set HF_TOKEN; nothing was committed"
        )
    if status == 403:
        return RequestError(
            f"the token may not write to {repository} (403): check the owner's name, and that the token may write there; nothing was committed"
        )
    if status == 412:
        return RunError(
            f"{repository} got another commit meanwhile (412): look at it, then run the same command again; nothing was committed"
        )
    said = getattr(error, "server_message", None) or _first_line(error)
    # a gateway may give up on a commit that is then made; any other refusal is the hub's own
    left = done if status is None or status >= 500 else "nothing was committed"
    return RunError(
        f"the hub refused the upload to {repository} ({status}: {said}); {left}; run the same command again"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
