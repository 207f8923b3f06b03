"""Where each file of a cache is. No other module knows."""

from pathlib import Path
from typing import Literal

PLAN, TOKENS, ARRAYS, COMMITS, MANIFEST = "plan.json", "tokens.npy", "arrays.zarr", "commits", "MANIFEST.json"
DOCUMENTS = "documents.npy"
"""Present only where the text says where a document begins."""

SKELETON = f"{COMMITS}/model.json"

CLAIM = "plan.claim"
"""In STORE while a job makes the plan: it says which job."""

EFFECTS = "effects"
"""The folder of measured effects of heads: `alens effects` adds it to a sealed cache."""

JACOBIANS = "jacobians"
"""The folder of measured Jacobians of heads: `alens jacobians` adds it to a cache, with a folder for each reach."""

Reach = Literal["same-position", "later-positions"]
"""Which positions of the stream move: that of z alone, or the sum over it and all later ones."""

SAME_POSITION: Reach = "same-position"
LATER_POSITIONS: Reach = "later-positions"
REACHES: tuple[Reach, ...] = (SAME_POSITION, LATER_POSITIONS)

PARTS = (PLAN, TOKENS, DOCUMENTS, ARRAYS, COMMITS, MANIFEST, CLAIM, EFFECTS, JACOBIANS)
"""All files and folders that lie in STORE itself."""

LENS_JSON, FIT_JSON = "lens.json", "fit.json"
"""The last and the first file that is written into a directory of lenses (`alens.lens.directory`): they tell it from a
cache."""

ASIDE = "aside"
"""The folder in STORE for files that `alens verify --repair` moved away. It is never read."""


def no_cache(root: Path | str) -> str:
    """A message: `root` is not a cache, and what it is instead, where that can be seen. A string is an address."""
    if isinstance(root, str):
        return f"{root} is not a cache (it has no plan.json): give an address that `alens push` wrote"
    holds = any((root / name).exists() for name in (LENS_JSON, FIT_JSON))
    why = ", it holds lenses" if holds else " (it has no plan.json)"
    return f"{root} is not a cache{why}: give a directory that `alens cache` wrote"


def record_name(shard: int) -> str:
    """The name of the commit record of a shard."""
    return f"{shard:06d}.json"


class StorePaths:
    """The layout of one cache directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan = root / PLAN
        self.tokens = root / TOKENS
        self.documents = root / DOCUMENTS
        self.arrays = root / ARRAYS
        self.commits = root / COMMITS
        self.skeleton = root / SKELETON
        self.manifest = root / MANIFEST
        self.claim = root / CLAIM

    def record(self, shard: int) -> Path:
        """The commit record of a shard: the shard counts once this file is there."""
        return self.commits / record_name(shard)

    def shard_file(self, array: str, shard: int, dimensions: int) -> Path:
        """The file that holds a shard of an array. The first axis is divided into shards, the others are not."""
        return self.arrays / array / self.shard_key(shard, dimensions)

    @staticmethod
    def shard_key(shard: int, dimensions: int) -> str:
        """Zarr's key of that file, with the default encoding and "." between indices."""
        return ".".join(["c", str(shard), *["0"] * (dimensions - 1)])
