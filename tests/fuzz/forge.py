"""Makes hashes right after a change, as a stranger who knows the format could do with code of his own.

In: the folder of all specimens and the changed file. Out: every hash of the file is that of its new contents, so
that only a look at the contents can tell.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

JSON = dict[str, Any]
OWN = "sha256"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(path: Path) -> JSON | None:
    """The object of a document without its hash; None where the file does not hold an object."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    body.pop(OWN, None)
    return body


def encode(body: JSON, hashed: bool, raw: dict[str, str] | None = None) -> bytes:
    """The bytes of a document as alens writes it. `raw` replaces strings in it by text that `json` would not write."""

    def text(body: JSON) -> bytes:
        written = json.dumps(body, indent=1) + "\n"
        for mark, put in (raw or {}).items():
            written = written.replace(json.dumps(mark), put)
        return written.encode()

    if not hashed:
        return text(body)
    own = sha256(text(body))
    return text({**body, OWN: own})


def identity(plan: JSON) -> str:
    """The right `identity` of a plan: a hash of everything except ids, places and software."""
    whole = json.loads(json.dumps(plan))
    for part, names in (
        (whole, ("created", "identity", "format")),
        (whole.get("model"), ("id", "revision", "probe")),
        (whole.get("corpus"), ("id", "revision")),
    ):
        if isinstance(part, dict):
            for name in names:
                part.pop(name, None)
    model, corpus = whole.get("model"), whole.get("corpus")
    if isinstance(model, dict) and model.get("config") is not None:
        model["config"] = json.dumps(model["config"], sort_keys=True)
    files = corpus.get("files") if isinstance(corpus, dict) else None
    for file in files if isinstance(files, list) else ():
        if isinstance(file, dict):
            file.pop("name", None)
    text = json.dumps({"format": 1, **_without_none(whole)}, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode())


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value


def mend(folder: Path, changed: Path, raw: dict[str, str] | None = None) -> None:
    """Make every hash right that leads to `changed`."""
    inside = changed.relative_to(folder)
    root = folder / inside.parts[0]
    if root.name == "cache":
        _mend_cache(root, changed, raw)
    elif changed.suffix == ".safetensors" and root.name in ("lenses", "export"):
        for name in ("lens.json", "config.json"):
            _edit(root / name, lambda body: _set_hash(body.get("files"), changed.name, changed))
    elif changed.name == "state.safetensors":
        _edit(changed.with_name("checkpoint.json"), lambda body: body.update(state_sha256=_of(changed)))
    elif changed.name == "held-out.safetensors":
        _edit(changed.with_name("result.json"), lambda body: body.update(sums_sha256=_of(changed)))


def _of(path: Path) -> str:
    return sha256(path.read_bytes())


def _edit(path: Path, change: Callable[[JSON], object], raw: dict[str, str] | None = None) -> None:
    if not path.is_file():
        return
    hashed = OWN in json.loads(path.read_bytes())
    body = read(path)
    assert body is not None
    change(body)
    path.write_bytes(encode(body, hashed, raw))


def _set_hash(files: Any, name: str, path: Path) -> None:
    if isinstance(files, dict) and isinstance(files.get(name), dict):
        files[name] |= {"bytes": path.stat().st_size, "sha256": _of(path)}


def _mend_cache(root: Path, changed: Path, raw: dict[str, str] | None) -> None:
    if changed.suffix == ".npy":
        name = "sha256" if changed.name == "tokens.npy" else "documents_sha256"
        _edit(root / "plan.json", lambda body: body["tokens"].update({name: _of(changed)}))
        changed = root / "plan.json"
    if changed.name == "plan.json":
        _mend_plan(root, raw)
    elif "arrays.zarr" in changed.parts:
        key = changed.relative_to(root / "arrays.zarr").as_posix()
        for path in sorted((root / "commits").glob("*.json")):
            _edit(path, lambda body: _set_hash(body.get("files"), key, changed))


def _mend_plan(root: Path, raw: dict[str, str] | None) -> None:
    """Put the identity of the plan into every record, and into the attributes of arrays.zarr."""
    plan = read(root / "plan.json")
    if plan is None:
        return
    now = identity(plan)
    (root / "plan.json").write_bytes(encode({**plan, "identity": now}, True, raw))
    group = root / "arrays.zarr" / "zarr.json"
    said = json.loads(group.read_bytes())
    said["attributes"]["plan"] = now
    group.write_text(json.dumps(said, indent=2))
    for path in (*sorted((root / "commits").glob("*.json")), root / "MANIFEST.json"):
        _edit(path, lambda body: (body.update(plan=now), _set_hash(body.get("files"), "zarr.json", group)))
