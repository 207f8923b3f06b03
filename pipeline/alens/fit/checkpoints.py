"""The state of a fit on disk, whole or absent: a killed fit goes on from the newest whole checkpoint.

In: the state of a fit after some step. Out: `checkpoints/step-00000100/` with one safetensors file and
`checkpoint.json`, which holds the hash of that file and the rest of the state. A checkpoint is written beside its place,
synced and renamed; the two newest are kept; one that does not match its hash is passed over for the older one.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from alens.errors import DamageError, RequestError
from alens.store import document, durable, typed
from alens.store.durable import write_errors

log = logging.getLogger("alens")

KEEP = 2
PARTIALS = f".step-*{durable.PARTIAL}"
STATE = "state.safetensors"
DESCRIPTION = "checkpoint.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A state that was saved after `step` steps."""

    step: int
    state: dict[str, torch.Tensor]
    notes: dict[str, Any]
    """What was saved beside the tensors: plain JSON values."""


@dataclass(frozen=True, kw_only=True)
class _CheckpointRecord:
    """What `checkpoint.json` holds."""

    __pydantic_config__ = typed.STRICT

    step: typed.Natural
    state_sha256: str
    notes: dict[str, Any]


def save(folder: Path, step: int, state: dict[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
    """Write the state after `step` steps and the notes beside it, and remove all but the newest KEEP checkpoints.

    Raises `RunError` when the disk refuses, and older checkpoints stay; `RequestError` where `folder` is a link.
    """
    final = folder / f"step-{step:08d}"
    partial = durable.partial_of(final)
    check(folder)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _drop(folder.glob(PARTIALS))  # of a process that was killed in here
        try:
            partial.mkdir()
            save_file(state, partial / STATE)
            with (partial / STATE).open("rb") as file:
                os.fsync(file.fileno())
            body = {"step": step, "state_sha256": durable.sha256_of(partial / STATE), "notes": notes}
            durable.put(partial / DESCRIPTION, document.encode(body))
            _drop([final])
            partial.rename(final)
        except SafetensorError as error:
            raise OSError(None, str(error), str(partial)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        durable.sync_folder(folder)
        _drop(_newest_first(folder)[KEEP:])


def check(folder: Path) -> None:
    """Raises `RequestError` where `folder` is a link: it may lead to the checkpoints of another fit."""
    if folder.is_symlink():
        raise RequestError(
            f"{folder} is a link to {folder.readlink()}, and alens saves nothing through one: the checkpoints of another fit "
            "may lie there; put a directory in its place, or link the whole directory of lenses"
        )


def drop_all(folder: Path) -> None:
    """Remove every checkpoint, and the folder if nothing else is in it. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            _drop([*_newest_first(folder), *folder.glob(PARTIALS)])
            folder.rmdir()


def _drop(paths: Iterable[Path]) -> None:
    """Remove these directories; of a link, the link itself."""
    for path in paths:
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


@contextlib.contextmanager
def taken_up(folder: Path) -> Iterator[None]:
    """A state is restored within the block: one that does not fit this fit raises `DamageError`."""
    try:
        yield
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        AssertionError,
        RuntimeError,
    ) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error):
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise DamageError(
            f"{folder} holds a checkpoint that is not of this fit ({what}): delete it, and the fit begins anew"
        ) from None


def newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None. A damaged one is named in the log and passed over.

    Raises `RequestError` where `folder` is a link: see `check`.
    """
    check(folder)
    for path in _newest_first(folder):
        try:
            body = document.decode(document.content(path / DESCRIPTION), DESCRIPTION)
            record = typed.parse(_CheckpointRecord, body, DESCRIPTION, document.MEND)
            if durable.sha256_of(path / STATE) == record.state_sha256:
                return Checkpoint(step=record.step, state=load_file(path / STATE), notes=record.notes)
            problem = f"{STATE} does not match its hash"
        except (OSError, DamageError, SafetensorError) as error:
            problem = str(error)
        log.warning("checkpoint %s is damaged (%s): using an older one", path, problem)
    return None


def last_step(folder: Path) -> int:
    """The step after which the newest checkpoint was saved, read from its name; 0 where there is none."""
    numbers = (path.name.removeprefix("step-") for path in folder.glob("step-[0-9]*"))
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-[0-9]*"), reverse=True)
