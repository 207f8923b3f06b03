"""Is a name a file or directory here, or an id on the hub?

In: what was given as MODEL or CORPUS. Out: whether it is a path of this machine. A path comes first, unless alens made
the directory: who writes the cache of `gpt2` to `gpt2` still means the model the next time.
"""

import logging
from pathlib import Path

from alens import hub
from alens.store.durable import PARTIAL
from alens.store.paths import ARRAYS, CLAIM, PLAN, TOKENS

log = logging.getLogger("alens")

CACHE = {PLAN, TOKENS, ARRAYS, CLAIM}
LENSES = {"lens.json", "fit.json"}


def is_here(name: str, what: str) -> bool:
    """Whether `name` is a path here; where a cache or lenses hide the hub's `what` of that name, the log says so."""
    path = Path(name)
    if not path.exists():
        return False
    made = made_by_alens(path)
    if made is None or not hub.looks_like_id(name):
        return True
    log.warning(f"{path.absolute()} is {made}, no {what}: taking {name} of the hub")
    return False


def made_by_alens(path: Path) -> str | None:
    """`a cache`, `a directory of lenses` or `an empty directory`, which the first job of a cache makes; else None."""
    if not path.is_dir():
        return None
    names = {entry.name for entry in path.iterdir() if not entry.name.endswith(PARTIAL)}
    if names & LENSES:
        return "a directory of lenses"
    if names & CACHE:
        return "a cache"
    return None if names else "an empty directory"
