"""The request of `alens import`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from alens.fields import check

ModelWeights = Literal["auto", "raw", "processed"]


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
