"""Whether two records are of the same model: one answer for caches, lenses, exports and models that are loaded again.

In: two `ModelRecord`s. Out: how the second differs. Weights and configuration are compared exactly, the logits of the
probe up to the rounding of another device or dtype.
"""

import json
from typing import Any

from alens.store.model_record import ModelRecord

NAMED = 3
"""How many settings a message names."""


def difference(known: ModelRecord, other: ModelRecord) -> str | None:
    """How `other` differs from the known model, as a phrase for what it has: `other weights`. None: nothing differs.

    What one of them does not record is not compared: see `unchecked`.
    """
    if other.weights_sha256 != known.weights_sha256:
        return "other weights"
    if known.config is not None and other.config is not None and known.config != other.config:
        return f"another configuration ({_settings(known.config, other.config)})"
    if (apart := _apart(known, other)) is not None:
        return f"other logits for the same tokens ({apart})"
    return None


def unchecked(known: ModelRecord, other: ModelRecord) -> str | None:
    """What cannot be compared because one of the records is from an older alens that did not record it. None: all
    can."""
    if known.config is None or other.config is None:
        return "its configuration was not recorded then: that it computes the same function cannot be checked"
    return None


def _settings(known: dict[str, Any], other: dict[str, Any]) -> str:
    def said(settings: dict[str, Any], name: str) -> str:
        return json.dumps(settings[name]) if name in settings else "the default"

    names = [name for name in sorted(known.keys() | other.keys()) if said(known, name) != said(other, name)]
    shown = [f"{name} is {said(other, name)}, not {said(known, name)}" for name in names[:NAMED]]
    return ", ".join(shown) + (", ..." if len(names) > NAMED else "")


def _apart(known: ModelRecord, other: ModelRecord) -> str | None:
    ours, theirs = known.probe, other.probe
    if ours is None or theirs is None or ours["tokens"] != theirs["tokens"]:
        return None
    logits = list(zip(ours["logits"], theirs["logits"], strict=True))
    most = max(abs(one - two) for one, two in logits)
    largest = max(1.0, *(abs(one) for one, _ in logits))
    allowed = (known.rounding(ours["dtype"]) + known.rounding(theirs["dtype"])) * largest
    return None if most <= allowed else f"{most:.3g} apart, {allowed:.3g} is rounding"
