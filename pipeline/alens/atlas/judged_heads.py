"""The figures of the heads of an atlas, out of the document of an evaluation.

In: what `alens eval --json` prints, made in the same run or read from a file. Out: a `JudgedHead` for each head.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alens.atlas.atlas_head import Interval, JudgedHead, JudgedReading
from alens.errors import RequestError
from alens.evaluation.panel import LENS, MEAN_OUTPUT
from alens.heads import Head, Heads

CAUSES = ("correlation", "explained_variance", "sign_agreement")


def read_figures(path: Path, heads: Heads) -> Mapping[str, Any]:
    """The document in a file of `alens eval --json`. Raises `RequestError` for another file, or where a head is missing."""
    try:
        document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        judged = judged_heads(document)
        figures_of(document)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RequestError(
            f"{path} has no figures of heads: give a file that `alens eval LENSES STORE --json` wrote"
        ) from None
    for layer, head in heads:
        readings = judged[layer, head].readings if (layer, head) in judged else {}
        if not {LENS, MEAN_OUTPUT} <= readings.keys():
            raise RequestError(f"{path} has no figures of head {layer}.{head}: judge these lenses first")
    return document


def figures_of(document: Mapping[str, Any]) -> tuple[int, str, int]:
    """Rows that were judged, and what intervals are over, with how many of them."""
    return int(document["rows"]), str(document["intervals_over"]), int(document["groups"])


def judged_heads(document: Mapping[str, Any]) -> dict[Head, JudgedHead]:
    """By head."""
    readings: dict[Head, dict[str, JudgedReading]] = {}
    for entry in document["readings"]:
        if entry["layer"] is not None and entry["head"] is not None:
            head = int(entry["layer"]), int(entry["head"])
            readings.setdefault(head, {})[str(entry["reading"])] = _reading(entry)
    effects = document.get("effects") or {"heads": []}
    sizes = {(int(one["layer"]), int(one["head"])): float(one["size"]) for one in effects["heads"]}
    return {head: JudgedHead(readings=of_head, effect=sizes.get(head)) for head, of_head in readings.items()}


def _reading(entry: Mapping[str, Any]) -> JudgedReading:
    beside = entry.get("lens_minus")
    return JudgedReading(
        kl=float(entry["kl"]),
        kl_interval=_interval(entry["intervals"].get("kl")),
        top1_agreement=float(entry["top1_agreement"]),
        gain=None if beside is None else -float(beside["kl"]["difference"]),
        gain_interval=None if beside is None else _turned(_interval(beside["kl"]["interval"])),
        causes=tuple(_number(entry.get(name)) for name in CAUSES),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _interval(ends: Any) -> Interval | None:
    return None if ends is None else (float(ends[0]), float(ends[1]))


def _turned(ends: Interval | None) -> Interval | None:
    """The interval of the opposite difference."""
    return None if ends is None else (-ends[1], -ends[0])
