"""`sweep.json`: which sweep a directory holds.

In: a `SweepRequest` and its cache. Out: the file, written once, and a refusal of any other sweep in its directory.
"""

import dataclasses
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError
from alens.store import document, durable, leftovers, typed
from alens.store.cache_reader import Cache
from alens.store.durable import write_errors
from alens.sweep.request import SweepRequest

NAME = "sweep.json"
FORMAT = 1


def content(request: SweepRequest, cache: Cache) -> dict[str, Any]:
    """What `sweep.json` holds: settings as they were given."""
    return {
        "format": FORMAT,
        "cache_plan": cache.plan.identity,
        "base": request.grid.base.to_json(),
        "variants": {variant.name: variant.settings.to_json() for variant in request.grid.variants},
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sweep:
    """What `sweep.json` holds."""

    __pydantic_config__ = typed.STRICT

    format: int
    cache_plan: str
    base: dict[str, Any]
    variants: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        """Raises `TypeError`, because the file may come from anywhere."""
        for name, settings in self.variants.items():
            if Path(name).name != name or not name.isprintable():
                raise TypeError(f"variants has {name[:60]!r}, which is not the name of a directory")
            if settings.keys() != next(iter(self.variants.values())).keys():
                raise TypeError(f"variants.{name} has other settings than the first")


def put(out: Path, asked: dict[str, Any]) -> None:
    """Write `sweep.json` into a new or empty directory. Raises `RequestError` where it holds anything else."""
    with write_errors(out):
        leftovers.clear(out / NAME)
        if not (out / NAME).exists():
            durable.put(out / NAME, document.encode(asked))
    check_same(out, read(out), asked)  # another worker may have begun at the same time


def check(out: Path, asked: dict[str, Any]) -> None:
    """Raises `RequestError` unless `out` is new, empty, or the directory of the same sweep."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is not a directory: name a directory for the sweep")
    if (out / NAME).exists():
        check_same(out, read(out), asked)
    elif out.exists() and any(not path.name.endswith(durable.PARTIAL) for path in out.iterdir()):
        raise RequestError(f"{out} is neither empty nor a sweep: name another directory")


def read(out: Path) -> dict[str, Any]:
    """What `sweep.json` holds. Raises `RequestError` where there is none, `DamageError` for a damaged one."""
    try:
        body = document.decode(document.content(out / NAME), str(out / NAME))
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(
            f"{out} is not a sweep (it has no {NAME}): run `alens sweep` to begin one"
        ) from None
    except DamageError:
        raise DamageError(f"{out / NAME} was altered: delete {out} and sweep again") from None
    if body.get("format") != FORMAT:
        raise RequestError(f"{out / NAME} has format {body.get('format')}; this alens reads format {FORMAT}")
    typed.parse(_Sweep, body, str(out / NAME), f"delete {out} and sweep again")
    return body


def check_same(out: Path, begun: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises `RequestError` where `out` holds another sweep than was asked for, with the differences."""
    unset = dict.fromkeys(asked["base"])  # a field that an older alens did not have counts as not given
    begun = {
        **begun,
        "base": {**unset, **begun["base"]},
        "variants": {name: {**unset, **settings} for name, settings in begun["variants"].items()},
    }
    if begun == asked:
        return
    before, now = begun["variants"], asked["variants"]
    phrases = [
        *(f"it has no variant {name}" for name in now if name not in before),
        *(f"its variant {name} is not asked for" for name in before if name not in now),
        *(
            f"{field} of {name} is {now[name][field]} (begun: {before[name].get(field)})"
            for name in now
            if name in before
            for field in now[name]
            if now[name][field] != before[name].get(field)
        ),
    ]
    if begun["cache_plan"] != asked["cache_plan"]:
        phrases.insert(0, "it was begun on another cache")
    differences = "; ".join(phrases[:4]) or "its base settings are others"
    raise RequestError(f"{out} holds another sweep: {differences}. Ask for the same, or name a new OUT")
