"""Which sockets a process listens at, as the kernel lists them."""

import contextlib
import os
import re
from pathlib import Path

LOOPBACK = re.compile(r"[0-9A-F]{6}7F|0{24}01000000|0{16}FFFF0000[0-9A-F]{6}7F")
"""127.x.x.x, ::1 and the first inside IPv6, as hexadecimal words of this machine's order."""

LISTENS = "0A"


def listening(pid: int) -> set[str]:
    """`tcp 0100007F:1F90`: protocol, and address and port in hexadecimal. Empty when the process is over."""
    inodes, found = set(), set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)):  # noqa: PTH115 - no path
                    inodes.add(match[1])
        for protocol in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] in inodes and (fields[3] == LISTENS or protocol.startswith("udp")):
                    found.add(f"{protocol} {fields[1]}")
    return found


def reachable(sockets: set[str]) -> list[str]:
    """Those that are not on the loopback: another machine may reach them."""
    return sorted(found for found in sockets if not LOOPBACK.fullmatch(found.split()[1].partition(":")[0]))
