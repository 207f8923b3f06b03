"""Which sockets a process listens on, as the kernel lists them."""

import contextlib
import os
import re
from pathlib import Path

LOOPBACK = re.compile(r"[0-9A-F]{6}7F|0{24}01000000|0{16}FFFF0000[0-9A-F]{6}7F")
"""127.x.x.x, ::1, and 127.x.x.x inside IPv6, as hexadecimal words in the byte order of this machine."""

LISTENS = "0A"


def listening(pid: int) -> set[str]:
    """The sockets of a process as `tcp 0100007F:1F90`: protocol, address and port in hexadecimal. Empty once it has ended."""
    inodes, addresses = set(), set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)):  # noqa: PTH115 - no path
                    inodes.add(match[1])
        for protocol in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] in inodes and (fields[3] == LISTENS or protocol.startswith("udp")):
                    addresses.add(f"{protocol} {fields[1]}")
    return addresses


def reachable(sockets: set[str]) -> list[str]:
    """The sockets that are not on the loopback: other machines may reach them."""
    return sorted(socket for socket in sockets if not LOOPBACK.fullmatch(socket.split()[1].partition(":")[0]))
