"""Reads a document as the dataclass that describes it, and checks that every field has its type and limits.

In: the object of a document, and a dataclass with limits in its annotations (`Annotated[int, Ge(1)]`). Out: an
instance, or one line that names file, field, value and what was expected. pydantic checks strictly: "3"
is not a number, 2.5 and true are not whole numbers, and a field that the dataclass does not have is an error.
"""

import functools
import json
from collections.abc import Hashable, Mapping
from typing import Annotated, Any, TypeVar, cast

from annotated_types import Ge, Le

from alens.errors import DamageError, RequestError

T = TypeVar("T")

MOST = 2**53
"""The largest whole number that every reader of JSON reads exactly."""

Natural = Annotated[int, Ge(0), Le(MOST)]
Count = Annotated[int, Ge(1), Le(MOST)]
Bounded = Annotated[int, Ge(1), Le(2**32)]
"""A setting of a cache that counts something."""
Layers = Annotated[int, Ge(1), Le(10_000)]
Width = Annotated[int, Ge(1), Le(2**24)]
"""The largest width of vectors, and of heads side by side."""
Vocabulary = Annotated[int, Ge(1), Le(2**32)]
"""The size of a vocabulary, and every other count whose numbers are stored as uint32, such as sequences."""
Amount = Annotated[float, Ge(0)]
"""A finite number, zero or above."""

STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False, "str_max_length": 10_000}
"""`__pydantic_config__` of every dataclass that documents are read as."""
OPEN = {**STRICT, "extra": "ignore"}
"""The same for documents that may have further fields, such as versions of software."""

SHOWN = 60
"""Characters of a value that a message shows."""


def parse(kind: type[T], body: Mapping[str, Any], where: str, mend: str) -> T:
    """An instance of `kind`; `where` names the file in errors, `mend` says what to do.

    Raises `DamageError` for a field that is missing, unknown, of another type or outside its limits.
    """
    instance, what = _validated(kind, body)
    if instance is None:
        raise DamageError(f"{where} is not whole ({what}): {mend}")
    return instance


def wrong(kind: type[T], body: Mapping[str, Any]) -> str | None:
    """Why `body` is not an instance of `kind`: `worker is "abc": ...`. None where it is one."""
    return _validated(kind, body)[1]


def _validated(kind: type[T], body: Mapping[str, Any]) -> tuple[T | None, str | None]:
    """The instance, or why there is none."""
    from pydantic import ValidationError  # takes 50 ms, and is needed only where documents are read

    try:
        instance: T = _adapter(cast(Hashable, kind)).validate_json(json.dumps(body), strict=True)
    except ValidationError as error:
        return None, _said(error.errors(include_url=False, include_context=False)[0])
    except (RequestError, TypeError, ValueError, RecursionError) as error:  # from the dataclass itself
        return None, str(error)
    return instance, None


@functools.cache
def _adapter(kind: Hashable) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))


def _said(error: Mapping[str, Any]) -> str:
    """`settings.keep_bits is 2.5: input should be a valid integer`."""
    # pydantic names the kinds of a union too, such as `tuple[int, ...]`
    field = ".".join(str(part) for part in error["loc"] if "[" not in str(part)) or "the document"
    if error["type"] == "missing":
        return f"it lacks {field}"
    if error["type"] == "json_invalid":  # half of a surrogate pair
        return str(error["msg"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"it has the unknown field {field}"
    shown = json.dumps(error["input"])
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return f"{field} is {shown}: {error['msg'][0].lower()}{error['msg'][1:]}"
