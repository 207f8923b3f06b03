"""The measured effects of heads beside a cache, as files: `effects/` in its directory.

In and out: as in `head_files.py`; the arrays are (N, H, D), the rows of some sequences, one after the other.
Shapes: N rows, H heads, D d_model.
"""

from dataclasses import dataclass
from pathlib import Path

from alens.store.head_files import HeadFile, HeadFiles, HeadRecord
from alens.store.paths import EFFECTS
from alens.store.stage import Stage

FIRST_POSITION = 1
"""Effects are kept from this position on: position 0 sees only itself."""

ROWS_PER_SHARD = 512
"""About the rows that one file has of each head: whole sequences, one at least."""


@dataclass(frozen=True, kw_only=True)
class EffectRecord(HeadRecord):
    """The document beside an array of effects, whose first axis has the rows of each sequence from position 1 on."""

    mean_sha256: str
    """The hash of the mean z that was put in the place of z, (H, d_head) float32."""


EffectFile = HeadFile[EffectRecord]


class EffectFiles(HeadFiles[EffectRecord]):
    """The files of effects beside one cache."""

    COMMAND = "alens effects"
    RECORD = EffectRecord

    def __init__(self, root: Path, identity: str, stage: Stage | None = None) -> None:
        super().__init__(root, identity, EFFECTS, stage)
