"""What went wrong with a request, in a few words.

In: what obstore raised. Out: a `Failure`: why, whether it may pass, and what to look at. obstore puts the address, the
server's answer and a dump of its own objects into one text of many lines.
"""

import errno
import os
import re
from dataclasses import dataclass

from alens.errors import RequestError
from alens.printable import printable

_STATUS = re.compile(r"status code: (\d{3})([^:\n]*)")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_SYSTEM = re.compile(r'kind: \w+,\s+message: "([^"\n]{1,120})"')
_TIMED_OUT = re.compile(r"\bTimedOut\b|\bkind: Timeout\b|operation timed out")

_NO_KEYS = ("latest/api/token", "latest/meta-data", "Missing AccessKeyId", "Missing SecretAccessKey")
"""Where there are no keys, a cloud machine's own service is asked for them."""

PASSING = (408, 425, 429)
"""Answers below 500 that ask for another try."""

KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for what anyone may read"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a request failed."""

    why: str
    passes: bool
    """Whether another try may help."""
    absent: bool = False
    """Whether there is no such object."""
    hint: str = "look at the network and at the server"

    def raise_final(self, what: str, where: str) -> None:
        """Raises what no other try would change: `FileNotFoundError` or `RequestError`."""
        if self.absent:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where) from None
        if not self.passes:
            raise RequestError(f"{what} {where}: {self.why}; {self.hint}") from None


def failure_of(error: Exception) -> Failure | None:
    """What obstore's error says; None for an error that is not of a request."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if code is not None and code[1] == "NoSuchBucket":
        return Failure(
            why="there is no such bucket", passes=False, hint="look at its name and at AWS_ENDPOINT_URL"
        )
    if isinstance(error, FileNotFoundError):
        return Failure(why="there is no such object", passes=False, absent=True)
    if any(part in text for part in _NO_KEYS):
        return Failure(why="there are no credentials", passes=False, hint=KEYS)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        why = _said(status, code, "the server refuses")
        return Failure(why=why, passes=False, hint="look at the credentials and at what they allow")
    if not isinstance(error, BaseError):
        return None
    if status is not None:
        number = int(status[1])
        return Failure(why=_said(status, code, ""), passes=number >= 500 or number in PASSING)
    if _TIMED_OUT.search(text):
        return Failure(why="nothing came in time", passes=True)
    if (system := _SYSTEM.search(text)) is not None:
        return Failure(why=printable(system[1]).lower(), passes=True)
    if "dns error" in text:
        return Failure(why="the name of the host is not known", passes=True)
    head = text.partition("\n\nDebug source")[0].rpartition(" - ")[2] or type(error).__name__
    return Failure(why=printable(head.splitlines()[0] if head else "it failed")[:160], passes=True)


def _said(status: "re.Match[str] | None", code: "re.Match[str] | None", otherwise: str) -> str:
    """`the server answers 503 Service Unavailable (SlowDown)`"""
    if status is None:
        return otherwise
    return f"the server answers {status[1]}{printable(status[2])[:40]}" + (f" ({code[1]})" if code else "")
