"""Where each file of a cache is. The one place that knows."""

from pathlib import Path

PLAN, TOKENS, ARRAYS, COMMITS, MANIFEST = "plan.json", "tokens.npy", "arrays.zarr", "commits", "MANIFEST.json"
DOCUMENTS = "documents.npy"
"""Only where the text says where a document begins."""

SKELETON = f"{COMMITS}/model.json"

CLAIM = "plan.claim"
"""In STORE while a job makes the plan: which one."""

PARTS = (PLAN, TOKENS, DOCUMENTS, ARRAYS, COMMITS, MANIFEST, CLAIM)
"""All of a cache that lies in STORE itself."""

LENS_JSON, FIT_JSON = "lens.json", "fit.json"
"""What tells a directory of lenses from a cache: of a lens directory the last file and the first
(`alens.lens.directory`)."""

ASIDE = "aside"
"""In STORE: what `alens verify --repair` moved away. Never read."""


def no_cache(root: Path) -> str:
    """For a message: that `root` is no cache, and what it is where that can be seen."""
    holds = any((root / name).exists() for name in (LENS_JSON, FIT_JSON))
    why = ", it holds lenses" if holds else " (it has no plan.json)"
    return f"{root} is no cache{why}: give a directory that `alens cache` wrote"


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
        return self.commits / f"{shard:06d}.json"

    def shard_file(self, array: str, shard: int, dimensions: int) -> Path:
        """The file that holds a shard of an array: its first axis is cut, the others are whole."""
        return self.arrays / array / self.shard_key(shard, dimensions)

    @staticmethod
    def shard_key(shard: int, dimensions: int) -> str:
        """Zarr's key of that file, with the default encoding and "." between indices."""
        return ".".join(["c", str(shard), *["0"] * (dimensions - 1)])
