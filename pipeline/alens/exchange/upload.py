"""The one module that sends anything: files become one commit of a repository on the Hugging Face hub.

In: files by their paths in the repository. Out: the commit, and which files it replaced; what goes wrong becomes one
clear line. A commit names the one before it as its parent, so it is made whole or not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alens.errors import RequestError, RunError
from alens.exchange.request import UploadSettings
from alens.sources import hub

OWN_BY_RIGHT = frozenset({".gitattributes", "README.md", "LICENSE"})
"""What a repository may hold before the first upload."""


def has_token() -> bool:
    """Whether this machine has a token for the hub; the hub is not asked whether it accepts it."""
    from huggingface_hub import get_token

    return get_token() is not None


def check_can_upload() -> None:
    """Raises `RequestError` where an upload cannot even begin; called before the work, and does not need the network."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise RequestError("HF_HUB_OFFLINE is set: unset it to upload; nothing was sent")
    if not has_token():
        raise RequestError(
            "this machine has no token for the hub: run `hf auth login`, or set HF_TOKEN; nothing was sent"
        )


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """The result of an upload."""

    commit: str
    """The commit that holds the files."""
    url: str
    private: bool
    """Whether the repository is private; one that existed before stays as it was."""
    changed: bool
    """False where the repository held just these files, so that no commit was made."""
    replaced: tuple[str, ...]
    """Files that existed before, changed or not; the history keeps their earlier content."""


def upload(
    repository: str,
    files: Mapping[str, Path | bytes],
    settings: UploadSettings,
    *,
    message: str,
    mark: str,
) -> Uploaded:
    """Put `files` (path in the repository -> file or content) into a model repository as one commit.

    The repository and the branch of `settings` are created where they do not exist. A repository that holds other
    files, and no file `mark`, is left alone.

    Raises `RequestError` for a name, a token or a repository that cannot be used, `RunError` when the hub or the
    connection fails; its message says what was committed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    hub.check_repository(repository)
    check_can_upload()
    private, revision = settings.private, settings.revision
    api = HfApi(library_name="alens")
    branch = revision or constants.DEFAULT_REVISION
    done = "nothing was committed"
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        before = api.model_info(repository, revision=branch)
        there = {file.rfilename for file in before.siblings or ()}
        _check_target(repository, private, bool(before.private), there, mark)
        operations = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=source) for path, source in files.items()
        ]
        with hub.quiet():
            api.preupload_lfs_files(repository, operations, revision=branch, free_memory=False)
        done = f"the commit is there whole or not at all: look at {constants.ENDPOINT}/{repository}/commits/{branch}"
        with hub.quiet():
            commit = api.create_commit(
                repository, operations, commit_message=message, revision=branch, parent_commit=before.sha
            )
    except HfHubHTTPError as error:
        raise _refusal(error, repository, done) from None
    except (hub.transport_error(), OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"the upload to {repository} failed ({hub.cause(error)}: {_first_line(error)}); {done}; run the same "
            "command again, what is there is not sent twice"
        ) from None
    return Uploaded(
        commit=commit.oid,
        url=f"{constants.ENDPOINT}/{repository}",
        private=bool(before.private),
        changed=commit.oid != before.sha,
        replaced=tuple(sorted(there & files.keys())),
    )


def _check_target(repository: str, private: bool, is_private: bool, there: set[str], mark: str) -> None:
    """Raises `RequestError` for a repository that is public against the request, or holds something else."""
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
    """The error for a refusal of the hub, in one line."""
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
    answer = getattr(error, "server_message", None) or _first_line(error)
    # A gateway may give up on a commit that the hub then makes; other refusals are the hub's own.
    left = done if status is None or status >= 500 else "nothing was committed"
    return RunError(
        f"the hub refused the upload to {repository} ({status}: {answer}); {left}; run the same command again"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
