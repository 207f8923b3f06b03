"""The one door to the Hugging Face hub: an id becomes a local directory, or one clear line.

In: a repository id and the file patterns that are needed. Out: a snapshot directory in the hub cache and
the commit it stands for. Nothing else in alens goes to the network, and nothing is fetched that was not
asked for by its hub id; with HF_HUB_OFFLINE=1 only the hub cache is looked at.
"""

import re
from pathlib import Path

from alens.errors import RequestError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def looks_like_id(text: str) -> bool:
    """Whether `text` has the form of a hub id: `name` or `owner/name`."""
    return _ID.fullmatch(text) is not None


def snapshot(repository: str, *, kind: str, revision: str | None, patterns: list[str]) -> tuple[Path, str]:
    """The directory and commit of a hub repository; `kind` is `model` or `dataset`.

    Raises `RequestError` when the hub is out of reach and the hub cache has no copy, or when the hub has
    no such repository or revision.
    """
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at {revision}" if revision else ""
    try:
        folder = Path(
            snapshot_download(repository, repo_type=kind, revision=revision, allow_patterns=patterns)
        )
    except GatedRepoError:
        raise RequestError(
            f"{kind} {repository} is gated: accept its terms on the hub and run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise RequestError(
            f"there is no {kind} {repository} on the hub, and no such file or directory here"
        ) from None
    except RevisionNotFoundError:
        raise RequestError(f"{kind} {repository} has no revision {revision} on the hub") from None
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HfHubHTTPError,
        httpx.HTTPError,
        ConnectionError,
    ) as error:
        why = (
            "HF_HUB_OFFLINE is set"
            if constants.HF_HUB_OFFLINE
            else f"the hub is out of reach ({type(error).__name__})"
        )
        fetch = (
            f"hf download {repository}"
            + (" --repo-type dataset" if kind == "dataset" else "")
            + (f" --revision {revision}" if revision else "")
        )
        raise RequestError(
            f"{repository}{at} is no file or directory here, the hub cache {constants.HF_HUB_CACHE} has no copy, and {why}: "
            f"run `{fetch}` where there is network"
        ) from None
    return folder, folder.name
