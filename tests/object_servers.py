"""Servers of objects on this machine: an S3 server in a process of its own, and one that fails as it is told.

`S3Server` is moto. `FaultyServer` stands before it, or serves a directory itself over http or https; `fail` tells it what
to do to the next requests of a path.
"""

import contextlib
import itertools
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from . import ports

Fault = Literal["503", "404", "silent", "stall", "cut", "close", "flip", "short"]
"""503, 404: that answer. silent: no answer. stall: half of the body, then nothing. cut: half of it, then the end.
close: the end at once. flip: one bit is another. short: half of the object, as if that were all of it."""

START_S = 60
"""Only a server that does not start takes so long."""


class S3Server:
    """An S3 server at `endpoint`."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._numbers = itertools.count(1)

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"bucket-{next(self._numbers)}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request):
            return name

    def upload(self, folder: Path) -> str:
        """The address of a copy of the folder, in a bucket of its own."""
        bucket = self.new_bucket()

        for path in folder.rglob("*"):
            if path.is_file():
                key = urllib.request.pathname2url(f"{folder.name}/{path.relative_to(folder).as_posix()}")
                header = {"Content-Type": "application/octet-stream"}  # moto takes a form apart
                url = f"{self.endpoint}/{bucket}/{key}"
                with urllib.request.urlopen(
                    urllib.request.Request(url, path.read_bytes(), header, method="PUT")
                ):
                    pass
        return f"s3://{bucket}/{folder.name}"


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """moto, until the end of the block."""
    with ports.leased() as free:
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(free[0])]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            started = time.monotonic()
            while not _answers(free[0]):
                assert process.poll() is None and time.monotonic() < started + START_S, "moto does not start"
                time.sleep(0.05)
            yield S3Server(f"http://127.0.0.1:{free[0]}")
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass
class FaultyServer:
    """What it did, and what it is to do. `endpoint` is its address."""

    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    """METHOD PATH of each request."""
    ranges: bool = True
    """Whether a part of an object can be asked for."""
    _faults: list[tuple[re.Pattern[str], Fault, list[int]]] = field(default_factory=list)
    _released: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, fault: Fault, path: str, times: int = 10**9) -> None:
        """Do this to the next `times` requests whose path has a match of `path`."""
        self._faults.append((re.compile(path), fault, [times]))

    def heal(self) -> None:
        """Do nothing more."""
        self._faults.clear()

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            for pattern, fault, left in self._faults:
                if left[0] and pattern.search(path):
                    left[0] -= 1
                    return fault
        return None

    def wait(self) -> None:
        """Until the server ends."""
        self._released.wait(START_S)


@contextlib.contextmanager
def faulty_server(behind: str | Path, tls: ssl.SSLContext | None = None) -> Iterator[FaultyServer]:
    """Stands before the server at the address `behind`, or serves the directory `behind`."""
    state = FaultyServer()

    class Handler(_Handler):
        server_state = state
        source = behind

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.endpoint = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state._released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FaultyServer
    source: str | Path

    def do_GET(self) -> None:
        state = self.server_state
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state.requests.append(f"{self.command} {self.path}")
        fault = state.fault(f"{self.command} {self.path}")
        if fault == "close":
            self.close_connection = True
            return
        if fault == "silent":
            state.wait()
            self.close_connection = True
            return
        if fault in ("503", "404"):
            status, headers, body = int(fault), {}, b""
        elif isinstance(self.source, Path):
            status, headers, body = self._from_directory(self.source)
        else:
            status, headers, body = self._forwarded(self.source, content)
        if fault == "flip" and body:
            body = bytes([*body[: len(body) // 2], body[len(body) // 2] ^ 1, *body[len(body) // 2 + 1 :]])
        if fault == "short":
            body = body[: len(body) // 2]
        self._answer(status, headers, body, fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_PROPFIND = do_GET

    def _answer(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(OSError):
            if fault in ("stall", "cut"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if fault == "stall":
                    self.server_state.wait()
                self.close_connection = True
                return
            self.wfile.write(body)

    def _forwarded(self, to: str, content: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(to.removeprefix("http://"))
        try:
            connection.request(self.command, self.path, content, dict(self.headers.items()))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _from_directory(self, root: Path) -> tuple[int, dict[str, str], bytes]:
        path = root / urllib.request.url2pathname(self.path.lstrip("/"))
        if self.command not in ("GET", "HEAD"):
            return 405, {}, b""
        if not path.is_file():
            return 404, {}, b""
        size, wanted = (
            path.stat().st_size,
            re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or ""),
        )
        if self.command == "HEAD":
            return 200, {"Content-Length": str(size)}, b""
        if wanted is None or not self.server_state.ranges:
            return 200, {}, path.read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2]), size - 1)
        with path.open("rb") as file:
            file.seek(first)
            return 206, {"Content-Range": f"bytes {first}-{last}/{size}"}, file.read(last - first + 1)

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""
