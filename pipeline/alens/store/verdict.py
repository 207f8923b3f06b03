"""What `verify` says of a cache: its findings, and how much was read."""

from dataclasses import dataclass
from typing import Any

from alens.result import Result
from alens.store.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Verdict(Result):
    """The result of checking a whole cache."""

    findings: tuple[Finding, ...]
    files: int
    """Files that were checked, documents included."""
    bytes: int
    """Bytes that were hashed."""
    seconds: float
    shards_committed: int
    shards_missing: int | None
    """How many planned shards are not committed. None: neither plan nor manifest says how many are planned."""

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)

    @property
    def whole(self) -> bool:
        return not any(finding.fails for finding in self.findings)

    def headline(self) -> str:
        """Whether the cache is whole, and how much was read."""
        state = "whole" if self.whole else f"{self.count('damaged')} damaged, {self.count('missing')} missing"
        return f"{state}: {self.files} files, {self.bytes:,} bytes, {self.shards_committed} shards committed"

    def to_json(self) -> dict[str, Any]:
        """What `alens verify --json` says of the check itself."""
        return {
            "whole": self.whole,
            "findings": self.records(),
            "files": self.files,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "shards_committed": self.shards_committed,
            "shards_missing": self.shards_missing,
        }

    def records(self) -> list[dict[str, Any]]:
        """One record for each finding."""
        return [{"kind": f.kind, "path": f.path, "what": f.what, "mend": f.mend} for f in self.findings]
