"""The requests of `alens import`, `alens export` and `alens publish`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from alens.errors import RequestError
from alens.fields import check
from alens.heads import HeadNames
from alens.sources import hub

ModelWeights = Literal["auto", "raw", "processed"]
ExportForm = Literal["paper", "z"]
ExportDtype = Literal["float32", "float16", "bfloat16"]

FIGURES = "figures"
"""The folder of a bundle that holds figures."""
PICTURE, TABLE = "held-out-kl.png", "held-out.json"
"""Figures that alens adds to a bundle."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".pdf", ".html", ".json", ".csv", ".txt", ".md")
"""Kinds of files that people look at; none of them is run or loaded."""


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """A request to import published lenses. Raises `RequestError` for an unknown value of `weights`."""

    source: Path
    """An AttentionLens checkpoint or a directory of them, a tuned-lens directory, or what `alens export` wrote."""
    lenses: Path
    """The directory to write."""
    model: str
    """The model they are for: a directory, a hub id, or `demo`."""
    revision: str | None = None
    """Commit, branch or tag of a model on the hub."""
    layer: Annotated[int, Ge(0)] | None = None
    """Import only this layer. If the name of a checkpoint does not say its layer, this is the layer. None: all."""
    weights: ModelWeights = "auto"
    """What an AttentionLens checkpoint was trained on: the model's weights as they are (raw), or as TransformerLens
    processes them (processed); auto looks at the names in the checkpoint."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Which lenses are exported, and how."""

    layers: tuple[int, ...] | None = None
    """Layers to export. None: all that were fitted."""
    heads: HeadNames | None = None
    """Heads to export: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all that were fitted."""
    form: ExportForm = "paper"
    """Maps of head outputs (d_model x vocabulary), or of z as they were fitted."""
    dtype: ExportDtype = "float32"
    """The dtype of the numbers written."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class BundleRequest:
    """What is to be published."""

    lenses: Path
    """A lens directory."""
    repository: str
    """A model repository of the hub."""
    store: Path | None = None
    """The cache that the lenses were fitted on: its plan and manifest are published too, none of its rows."""
    figures: tuple[Path, ...] = ()
    """A further figure; give it once for each file."""
    license_id: str | None = None
    """The license, as the hub names it, such as mit. None: none."""

    def __post_init__(self) -> None:
        check(self)
        hub.check_local(self.lenses)
        hub.check_repository(self.repository)
        if self.license_id is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license_id):
            raise RequestError(
                f"{self.license_id!r} is not a license as the hub names them: give one such as apache-2.0, mit or cc-by-4.0"
            )
        taken = {PICTURE, TABLE}
        for path in self.figures:
            if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
                raise RequestError(f"{path} is not a figure: figures are {', '.join(SUFFIXES)}")
            if not path.is_file():
                raise RequestError(f"{path} does not exist, or is not a file: give figures that are there")
            if path.name in taken:
                raise RequestError(f"{path.name} is there twice in {FIGURES}/: give the file another name")
            taken.add(path.name)


@dataclass(frozen=True, kw_only=True)
class UploadSettings:
    """How a bundle is put into its repository. Raises `RequestError` for a name that a branch cannot have."""

    private: bool = False
    """Make the repository private."""
    revision: str | None = None
    """Branch to commit to. None: main."""

    def __post_init__(self) -> None:
        check(self)
        if self.revision is not None and not hub.is_revision(self.revision):
            raise RequestError(f"{self.revision!r} is not the name of a branch; nothing was sent")
