"""A lens directory: where each of its files is, and how lenses are written into it. The one place that knows.

In: a directory, a `LensRecord`, and the lenses of one layer after another. Out: a safetensors file a layer, what all
layers share, and last `lens.json`: a directory that has it holds whole lenses. `alens fit` and `alens import` write the
same way. Needs no torch before tensors are written, so that `alens info` is quick.
Shapes: H heads, E width of the site's values, D d_model, V vocabulary.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alens.errors import RunError
from alens.heads import Heads
from alens.lens.record import LensRecord
from alens.store import document, durable
from alens.store.durable import write_errors
from alens.store.one_writer import CLAIM
from alens.store.paths import FIT_JSON, LENS_JSON

if TYPE_CHECKING:
    import torch

    from alens.lens.maps import LayerLenses

MEAN_OUTPUT = "output.safetensors"
UNEMBEDDING = "unembedding.safetensors"

HALF_ROUNDING = 2.0**-11
"""The share of a number that float16 rounds away at most, unless the number is below 6e-5."""


def layer_file(layer: int) -> str:
    """The name of the file that holds the lenses of a layer."""
    return f"layer-{layer:02d}.safetensors"


def layer_metadata(layer: int, heads: Sequence[int]) -> dict[str, str]:
    """The metadata in the file of a layer.

    It is a single entry: safetensors writes several in any order, and the same fit would give other bytes.
    """
    return {"lenses": f"layer {layer}, heads {','.join(map(str, heads))}"}


class LensDirectory:
    """The layout of a lens directory, and its writer. A file is written whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # The lenses: what is published.
        self.lens_json = root / LENS_JSON
        self.mean_output = root / MEAN_OUTPUT
        self.unembedding = root / UNEMBEDDING
        # The fit that made them.
        self.fit_json = root / FIT_JSON
        self.log = root / "log.jsonl"
        self.checkpoints = root / "checkpoints"
        self.groups = root / "layer-groups"
        self.stopped = root / "stopped.json"
        self.claim = root / CLAIM
        # What a sweep keeps beside the lenses of a variant.
        self.clock = root / "clock.json"
        self.result = root / "result.json"
        self.sequence_sums = root / "held-out.safetensors"

    def __str__(self) -> str:
        return str(self.root)

    def layer(self, layer: int) -> Path:
        """The lenses of a layer."""
        return self.root / layer_file(layer)

    @property
    def holds_lenses(self) -> bool:
        """Whether whole lenses are here."""
        return self.lens_json.exists()

    @property
    def holds_fit(self) -> bool:
        """Whether a fit was begun here, finished or not."""
        return self.fit_json.exists()

    # Lenses

    def put_lenses(
        self,
        heads: Heads,
        layers: Iterable[tuple[int, "LayerLenses"]],
        log_mean_output_V: "torch.Tensor | None",
    ) -> dict[str, dict[str, Any]]:
        """Write lenses, layer by layer, then what all layers share; gives sizes and hashes for the record.

        `layers` gives the lenses of these heads; one layer is held at a time. The mean output is None where it is not
        known. Raises `OSError` when the disk refuses (see `durable.write_errors`), `RunError` for numbers that are not
        finite.
        """
        files: dict[str, dict[str, Any]] = {}
        shared: dict[str, torch.Tensor] = {}
        halves: Collection[str] = ()
        for layer, lenses in layers:
            halves = lenses.maps.halves
            files[layer_file(layer)] = self.put_layer(layer, heads.by_layer[layer], lenses.tensors(), halves)
            shared = lenses.maps.shared_tensors()
        if shared:
            files[UNEMBEDDING] = self._put_tensors(self.unembedding, shared, halves=halves)
        if log_mean_output_V is not None:
            files[MEAN_OUTPUT] = self._put_tensors(self.mean_output, {"log_mean_output": log_mean_output_V})
        return files

    def put_layer(
        self,
        layer: int,
        heads: Sequence[int],
        tensors: Mapping[str, "torch.Tensor"],
        halves: Collection[str] = (),
    ) -> dict[str, Any]:
        """Write the file of a layer, which says whose lenses it holds; gives its size and hash for the record."""
        return self._put_tensors(self.layer(layer), tensors, layer_metadata(layer, heads), halves)

    def put_record(self, record: LensRecord) -> None:
        """Write `lens.json`, after the files that it lists: from now on the directory holds lenses."""
        durable.put(self.lens_json, document.encode(record.to_json()))

    def _put_tensors(
        self,
        path: Path,
        tensors: Mapping[str, "torch.Tensor"],
        metadata: dict[str, str] | None = None,
        halves: Collection[str] = (),
    ) -> dict[str, Any]:
        """Write one safetensors file durably; gives its size and hash for the record.

        Tensors are float32; those in `halves` are float16 where their numbers survive it. Raises `RunError` for a number
        that is not finite: such a file would be refused on reading.
        """
        from safetensors.torch import save

        whole = {key: value.detach().float().cpu().contiguous() for key, value in tensors.items()}
        for key, tensor in whole.items():
            if not bool(tensor.isfinite().all()):
                raise RunError(f"{key} for {path} has numbers that are not finite: nothing is written")
        blob = save(
            {key: _as_half(value) if key in halves else value for key, value in whole.items()},
            metadata=metadata,
        )
        durable.put(path, blob)
        return {"bytes": len(blob), "sha256": durable.sha256_of(path)}

    # A fit in progress

    def mark_stopped(self, step: int, steps: int) -> None:
        """Say durably that the fit stopped on request after `step` of `steps`, with its state saved.

        A job script looks for this file before it submits the fit again. Exit codes cannot say it: a scheduler gives one
        code for many processes, and the same for a process that crashed as for one that was told to stop.
        """
        with write_errors(self.root):
            durable.put(self.stopped, (json.dumps({"step": step, "steps": steps}) + "\n").encode())

    def clear_stopped(self) -> None:
        """Remove the file that `mark_stopped` of an earlier run wrote. A fit does so when it starts, so a finished
        one has none."""
        with write_errors(self.root):
            durable.remove(self.stopped)


def _as_half(value: "torch.Tensor") -> "torch.Tensor":
    """The tensor as float16; as it is, where a row of it would lose more than the rounding of float16 or overflow."""
    half = value.half()
    error = (half.float() - value).norm(dim=-1)
    survives = bool(
        (error <= HALF_ROUNDING * value.norm(dim=-1)).all()
    )  # infinite where a number is too large
    return half if survives else value


class GroupDirectory(LensDirectory):
    """The same directory for a group of its layers, which is fitted by itself: its record stands in for `lens.json`."""

    def __init__(self, root: Path, layers: Sequence[int]) -> None:
        super().__init__(root)
        self.lens_json = self.groups / f"layer-{layers[0]:02d}.json"
