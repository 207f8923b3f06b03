"""Leases ports for servers that must know their port beforehand: no other process of tests gets the same ones."""

import contextlib
import socket
from collections.abc import Iterator

FIRST, END = 10_000, 30_000
"""Below the ports that Linux chooses by itself (32768 and above), so that no process gets one of these by chance."""
SIZE = 100


@contextlib.contextmanager
def leased() -> Iterator[range]:
    """SIZE - 1 free ports of 127.0.0.1 in a row. The port after them is held, which marks the row as taken."""
    for first in range(FIRST, END, SIZE):
        with contextlib.ExitStack() as probes, socket.socket() as held:
            try:
                held.bind(("127.0.0.1", first + SIZE - 1))
                for port in range(first, first + SIZE - 1):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            probes.close()
            yield range(first, first + SIZE - 1)
            return
    raise AssertionError(f"no {SIZE} free ports in a row between {FIRST} and {END}")
