"""Causal directions in a safetensors file, to steer, ablate or compare with them.

In: a `BasisStudy`. Out: a file with, for each head L.H, float32 tensors named `L.H.reads` (K, E), `L.H.writes`
(K, E), `L.H.mean` (E) of the lens's basis, in its order, and `L.H.lens_influence` and `L.H.model_influence` (K) in
nats; and back. The mean-ablated z is `z - ((z - mean) reads_k) writes_k`.
Shapes: K directions, E d_head.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from alens.errors import DamageError, RequestError
from alens.store import result_file
from alens.studies.basis.result import BasisStudy

SUFFIX = ".safetensors"
FORMAT = "alens causal basis 1"


@dataclass(frozen=True, kw_only=True)
class Directions:
    """The basis of one head's lens, as it was read."""

    reads_KE: torch.Tensor
    """The feature of direction k is `(z - mean) reads_k`."""
    writes_KE: torch.Tensor
    """What a unit of the feature is in z."""
    mean_E: torch.Tensor
    lens_influence_K: torch.Tensor
    """Nats."""
    model_influence_K: torch.Tensor
    """Nats."""


def check_path(path: Path) -> None:
    """Check before the work that directions can be written there; raises `RequestError` where they cannot.

    A file of directions is replaced; any other file, such as one of lenses, stays.
    """
    result_file.check(path, (SUFFIX,), "directions are")
    if path.exists() and not _is_basis(path):
        raise RequestError(f"{path} is there and holds no directions: name another file, or remove it")


def put(path: Path, study: BasisStudy, weights_sha256: str) -> None:
    """Write the file whole. Raises `RequestError` as `check_path` does, and `RunError` where the disk refuses."""
    check_path(path)
    tensors = {}
    for head in study.heads:
        basis = head.bases[0]
        for name, value in (
            ("reads", basis.reads_KE),
            ("writes", basis.writes_KE),
            ("mean", head.mean_E),
            ("lens_influence", torch.tensor(basis.fidelity.lens_influence)),
            ("model_influence", torch.tensor(basis.fidelity.model_influence)),
        ):
            tensors[f"{head.layer}.{head.head}.{name}"] = value.float().contiguous()
    metadata = {
        "format": FORMAT,
        "weights_sha256": weights_sha256,
        "settings": json.dumps(asdict(study.settings)),
    }
    result_file.write(path, _in_order(save(tensors, metadata=metadata)))


def _in_order(blob: bytes) -> bytes:
    """The same safetensors file, its metadata sorted: the library writes them in any order, and the same study
    would give other bytes."""
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= size
    return blob[:8] + text.ljust(size) + blob[8 + size :]


def _is_basis(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def load_directions(path: Path) -> dict[tuple[int, int], Directions]:
    """Directions by layer and head.

    Raises `RequestError` for a file without directions, and `DamageError` for one that is not whole.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise RequestError(
                    f"{path} does not hold a causal basis: give what `alens basis --save` wrote"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise RequestError(f"cannot read {path}: {error}") from None
    heads = dict.fromkeys(name.rpartition(".")[0] for name in sorted(tensors))
    try:
        directions = {
            (int(head.partition(".")[0]), int(head.partition(".")[2])): Directions(
                reads_KE=tensors[f"{head}.reads"],
                writes_KE=tensors[f"{head}.writes"],
                mean_E=tensors[f"{head}.mean"],
                lens_influence_K=tensors[f"{head}.lens_influence"],
                model_influence_K=tensors[f"{head}.model_influence"],
            )
            for head in heads
        }
    except (KeyError, ValueError) as error:
        raise DamageError(f"{path} is not whole ({error}): run `alens basis --save` again") from None
    return dict(sorted(directions.items()))
