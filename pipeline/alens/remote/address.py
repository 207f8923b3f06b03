"""Addresses of objects, told apart from paths of this machine.

In: text or a `Path`, as a user gives it. Out: an `ObjectAddress`, or None for a path. `s3://BUCKET/PREFIX` is read with the
usual variables AWS_*, `https://HOST/PATH` as it is; `http://` is for this machine alone, because nothing protects it on
the way.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from alens.errors import RequestError

_ADDRESS = re.compile(r"(s3|https?):/+(.*)", re.DOTALL)
"""A `Path` keeps one slash of two."""

_OTHER = re.compile(r"([a-z][a-z0-9+.-]{1,15})://.*", re.DOTALL)

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, kw_only=True)
class ObjectAddress:
    """Where objects are: `scheme` s3, https or http; `host` a bucket, or a host with its port; `prefix` without slashes
    at its ends."""

    scheme: str
    host: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def is_bucket(self) -> bool:
        """Whether it can be listed and written."""
        return self.scheme == "s3"

    @property
    def name(self) -> str:
        """The last part of it, as the name of a directory."""
        return (self.prefix or self.host).rpartition("/")[2]


def address(given: Path | str) -> ObjectAddress | None:
    """`given` as an address; None for a path of this machine. Raises `RequestError` for an address that cannot be read."""
    text = str(given)
    matched = _ADDRESS.fullmatch(text)
    if matched is None:
        if (other := _OTHER.fullmatch(text)) is not None and other[1] != "hf":
            raise RequestError(
                f"{text} has the scheme {other[1]}: give s3://BUCKET/PREFIX, https://HOST/PATH or a path"
            )
        return None
    scheme, rest = matched.groups()
    if any(mark in rest for mark in "?#") or not rest.isprintable():
        raise RequestError(
            f"{scheme}://{rest.partition('?')[0]} has more than a path: give an address without ? and #"
        )
    host, _, prefix = rest.partition("/")
    prefix = re.sub("/+", "/", prefix).strip("/")
    if any(part in (".", "..") for part in prefix.split("/")):
        raise RequestError(f"{scheme}://{rest} has . or .. in its path: write it without them")
    if scheme == "s3":
        if _BUCKET.fullmatch(host) is None:
            raise RequestError(
                f"s3://{rest} names no bucket: give s3://BUCKET/PREFIX, BUCKET 3 to 63 of a-z, 0-9, . and -"
            )
        return ObjectAddress(scheme=scheme, host=host, prefix=prefix)
    if "@" in host:
        raise RequestError(
            f"{scheme}://{host.rpartition('@')[2]}/{prefix} was given with a name or password: leave them out"
        )
    if _host(scheme, host) is None:
        raise RequestError(f"{scheme}://{rest} names no host: give https://HOST/PATH")
    if scheme == "http" and _host(scheme, host) not in LOOPBACK:
        raise RequestError(
            f"http://{host}/{prefix} is not protected on the way: give https://{host}/{prefix}"
        )
    return ObjectAddress(scheme=scheme, host=host, prefix=prefix)


def refuse(given: Path | str, what: str) -> None:
    """Raises `RequestError` where `given` is an address: `what` is done in directories of this machine."""
    if (remote := address(given)) is not None:
        raise RequestError(f"{what} {remote}: give a directory of this machine")


def _host(scheme: str, host: str) -> str | None:
    """The host without its port; None where that is not one."""
    try:
        split = urlsplit(f"{scheme}://{host}")
        name = split.hostname
        _ = split.port  # raises ValueError
    except ValueError:
        return None
    return f"[{name}]" if name and ":" in name else name
