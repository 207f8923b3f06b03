"""The measured Jacobians of heads beside a cache, as files: `jacobians/REACH/` in its directory.

In and out: as in `head_files.py`; the arrays are (E, H, D), the mean Jacobian of the residual stream before the last norm by
z of each head, over the positions of some sequences. The reach says which positions of the stream.
Shapes: H heads, E d_head, D d_model.
"""

from dataclasses import dataclass
from pathlib import Path

from alens.store.head_files import HeadFile, HeadFiles, HeadRecord
from alens.store.paths import JACOBIANS, Reach
from alens.store.stage import Stage
from alens.store.typed import Natural


@dataclass(frozen=True, kw_only=True)
class JacobianRecord(HeadRecord):
    """The document beside an array of Jacobians."""

    reach: Reach
    passes: Natural
    """Backward passes that it took."""


JacobianFile = HeadFile[JacobianRecord]


class JacobianFiles(HeadFiles[JacobianRecord]):
    """The files of Jacobians of one reach beside one cache."""

    COMMAND = "alens jacobians"
    RECORD = JacobianRecord

    def __init__(self, root: Path, identity: str, reach: Reach, stage: Stage | None = None) -> None:
        super().__init__(root, identity, f"{JACOBIANS}/{reach}", stage)
