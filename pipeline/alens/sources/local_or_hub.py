"""Is a name a file or directory of this machine, or an id on the hub?

In: what was given as MODEL or CORPUS. Out: whether it is a path of this machine. A path comes first, unless alens made
the directory: a user who writes the cache of `gpt2` to `gpt2` still means the model the next time.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from alens.errors import RequestError
from alens.sources import hub
from alens.store.durable import PARTIAL
from alens.store.paths import ARRAYS, CLAIM, FIT_JSON, LENS_JSON, PLAN, TOKENS

log = logging.getLogger("alens")

CACHE = {PLAN, TOKENS, ARRAYS, CLAIM}
LENSES = {LENS_JSON, FIT_JSON}


@contextlib.contextmanager
def searching_hub(name: str, what: str) -> Iterator[None]:
    """Put around the search for `name` on the hub: warns where a directory of alens has the same name.

    Raises a `RequestError` that names this directory where the hub has no such `what` (`model` or `text`).
    """
    path = Path(name)
    made = made_by_alens(path) if path.exists() else None
    if made is None:
        yield
        return
    try:
        yield
    except RequestError as error:
        raise RequestError(
            f"{path.absolute()} is {made}, not a {what}; as an id of the hub: {error}"
        ) from None
    log.warning(f"{path.absolute()} is {made}, not a {what}: taking {name} of the hub")


def is_local(name: str) -> bool:
    """Whether `name` is a path of this machine, and not an id with the same name as a directory of alens."""
    path = Path(name)
    return path.exists() and (made_by_alens(path) is None or not hub.looks_like_id(name))


def made_by_alens(path: Path) -> str | None:
    """`a cache`, `a directory of lenses`, `an empty directory` (which the first job of a cache makes), or None."""
    if not path.is_dir():
        return None
    names = {entry.name for entry in path.iterdir() if not entry.name.endswith(PARTIAL)}
    if names & LENSES:
        return "a directory of lenses"
    if names & CACHE:
        return "a cache"
    return None if names else "an empty directory"
