"""A small Hugging Face hub on this machine, so that the real huggingface_hub uploads and downloads in the tests.

It speaks what `HfApi.create_repo`, `create_branch`, `create_commit` and `snapshot_download` ask for: repositories with
branches and commits, small files inside the commit, large ones by LFS. It can be told to fail at a request. Run it
with `serving()`, and processes with the environment that it gives.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .outcomes import Outcome

TOKEN = "hf_of_the_tests"
LARGE_BYTES = 100_000
"""A file of so many bytes goes by LFS."""

RUN = """
import contextlib, io, json, sys
from alens.cli import run
outcomes = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    outcomes.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(outcomes))
"""


@dataclass
class Repository:
    """A repository: branches name commits, and commits hold files."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        whole = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        seed = f"{len(self.commits)}{message}".encode()
        number = hashlib.sha1(seed).hexdigest()
        self.commits[number] = whole
        self.branches[branch] = number
        self.messages.append(message)
        return number

    def at(self, revision: str) -> str | None:
        """The commit that a branch or a commit's own number names."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the main branch."""
        return self.commits[self.branches["main"]]


@dataclass
class Hub:
    """What the server holds, and what it was asked for."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """`METHOD path` of every request, in order."""
    fail: dict[str, int] = field(default_factory=dict)
    """The status to answer with for each pattern of `METHOD path`; 0 breaks the connection."""

    def environment(self, home: Path, *, token: str | None = TOKEN) -> dict[str, str]:
        """The environment of a process that uses this hub, with its files in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": token or "",
            "HF_HUB_ETAG_TIMEOUT": "200",  # 10 s by default: a busy machine may take longer
            "HF_HUB_DOWNLOAD_TIMEOUT": "200",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def run(
        self,
        home: Path,
        *commands: Sequence[object],
        token: str | None = TOKEN,
        env: Mapping[str, str] | None = None,
    ) -> list[Outcome]:
        """`alens` with each of the arguments, one after the other in one process that uses this hub."""
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps([[str(word) for word in words] for words in commands])],
            env={**os.environ, **self.environment(home, token=token), **(env or {})},
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr
        return [Outcome(*outcome) for outcome in json.loads(done.stdout.splitlines()[-1])]

    def publish(self, repository: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Put files into a repository, as somebody else would."""
        return self.repositories.setdefault(repository, Repository()).commit(branch, files, "by hand")


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub while the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    hub = server.hub = Hub(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, _Server)
        return self.server.hub

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        self.hub.asked.append(asked)
        for pattern, status in self.hub.fail.items():
            if re.search(pattern, asked):
                if not status:
                    self.close_connection = True
                    self.connection.close()
                    return
                self._body()
                self._json({"error": f"told to answer {status}"}, status)
                return
        body = self._body()
        for method, pattern, answer in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                answer(self, body, **match.groupdict())
                return
        self._json({"error": f"the stand-in does not know {asked}"}, 404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, body: Any, status: int = 200, **headers: str) -> None:
        self._bytes(json.dumps(body).encode(), status, headers)

    def _bytes(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._json({"error": "Invalid username or password."}, 401)
        return False

    def _repository(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (
            repository.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        ):
            self._json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _commit_of(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self._repository(name)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            self._json({"error": "Invalid rev id"}, 404, **{"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, commit

    # What is asked for

    def create(self, body: bytes) -> None:
        if not self._may_write():
            return
        said = json.loads(body)
        name = f"{said['organization']}/{said['name']}"
        if name in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
            return
        self.hub.repositories[name] = made = Repository(private=said.get("visibility") == "private")
        made.commit("main", {".gitattributes": b""}, "initial commit")
        self._json({"url": f"{self.hub.url}/{name}"})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        if not self._may_write() or (repository := self._repository(name)) is None:
            return
        if branch in repository.branches:
            self._json({"error": "Reference already exists"}, 409)
            return
        repository.branches[branch] = repository.branches["main"]
        self._json({})

    def info(self, body: bytes, name: str, revision: str = "main") -> None:
        if (held := self._commit_of(name, revision)) is None:
            return
        repository, commit = held
        siblings = [{"rfilename": path} for path in repository.commits[commit]]
        self._json(
            {"id": name, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}
        )

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if (held := self._commit_of(name, revision)) is None:
            return
        repository, commit = held
        self._json([_entry(path, content) for path, content in repository.commits[commit].items()])

    def yaml(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if not self._may_write() or (held := self._commit_of(name, revision)) is None:
            return
        repository, commit = held
        answers = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["size"] >= LARGE_BYTES else "regular"
            there = repository.commits[commit].get(file["path"])
            known = {} if there is None else {"oid": _oid(there)}
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
        self._json({"files": answers})

    def batch(self, body: bytes, name: str) -> None:
        if not self._may_write():
            return
        objects = []
        for one in json.loads(body)["objects"]:
            href = f"{self.hub.url}/objects/{one['oid']}"
            there = one["oid"] in self.hub.objects
            objects.append({**one, **({} if there else {"actions": {"upload": {"href": href}}})})
        self._json({"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._json({})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._may_write() or (held := self._commit_of(name, revision)) is None:
            return
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", held[1]) != held[1]:
            self._json({"error": "A commit has happened since. Please refresh and try again."}, 412)
            return
        files = {line["value"]["path"]: self._content(line) for line in lines if line["key"] != "header"}
        number = held[0].commit(revision, files, header["summary"])
        self._json({"commitOid": number, "commitUrl": f"{self.hub.url}/{name}/commit/{number}"})

    def _content(self, line: dict[str, Any]) -> bytes:
        if line["key"] == "file":
            return base64.b64decode(line["value"]["content"])
        return self.hub.objects[line["value"]["oid"]]

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        if (held := self._commit_of(name, revision)) is None:
            return
        repository, commit = held
        content = repository.commits[commit].get(path)
        if content is None:
            self._json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
            return
        self._bytes(content, 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit})


def _oid(content: bytes) -> str:
    """The hub's name for contents: the SHA-256 of a file that goes by LFS, git's SHA-1 of any other."""
    if len(content) >= LARGE_BYTES:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
    if len(content) >= LARGE_BYTES:
        entry["lfs"] = {"oid": _oid(content), "size": len(content), "pointerSize": 130}
    return entry


_NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.yaml),
    ("POST", rf"/api/models/{_NAME}/branch/(?P<branch>.+)", _Handler.branch),
    ("POST", rf"/api/models/{_NAME}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", rf"/api/models/{_NAME}/commit/(?P<revision>.+)", _Handler.commit),
    ("GET", rf"/api/models/{_NAME}/tree/(?P<revision>.+)", _Handler.tree),
    ("GET", rf"/api/models/{_NAME}/revision/(?P<revision>.+)", _Handler.info),
    ("GET", rf"/api/models/{_NAME}", _Handler.info),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/objects/(?P<oid>\w+)", _Handler.put),
    ("GET", rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    ("HEAD", rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
