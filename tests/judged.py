"""What a document of `alens eval --json` says of one reading."""

import json
from typing import Any


def of_heads(document: str, reading: str = "lens") -> list[dict[str, Any]]:
    """The figures of a reading, one entry a head, in the order of the document."""
    readings = json.loads(document)["readings"]
    return [one for one in readings if one["reading"] == reading and one["head"] is not None]


def mean_output_kl(document: str) -> float:
    """The KL of the mean output."""
    first = json.loads(document)["readings"][0]
    assert first["reading"] == "mean-output"
    return float(first["kl"])
