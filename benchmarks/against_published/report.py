"""Curves -> what they say: seconds to levels of held-out KL, ratios to alens, one JSON and one Markdown document.

Levels are alens's last KL plus 1, 5, 10, 25 %. A method that does not reach a level has a lower bound
(it trained so long, and stood above). Two figures go beyond what was run, and are named as such: the same
mathematics at another speed (`bound_by_equal_steps`), and a power law through the last three quarters of a curve
(`extrapolated_s`).
"""

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from against_published.race import Curve

LEVELS = (1.01, 1.05, 1.10, 1.25)
"""Times alens's KL at its end."""

BEYOND = 1e9
"""Seconds beyond which an extrapolation says nothing."""


def extrapolated_s(curve: Curve, level: float, floor_kl: float) -> float | None:
    """Seconds at which the excess over `floor_kl` falls to the level's, if the power law through the last three
    quarters of the curve holds on.

    None where the curve does not fall, where it would take longer than BEYOND, and where a power law says
    nothing: most of the excess at the start is still there, or a falling rate ends the curve.
    """
    if "decay" in curve.note or curve.last.kl - floor_kl > 2 / 3 * (curve.points[0].kl - floor_kl):
        return None
    late = [
        point for point in curve.points if point.seconds >= curve.last.seconds / 4 and point.kl > floor_kl
    ]
    if len(late) < 3 or level <= floor_kl:
        return None
    x = np.log([point.seconds for point in late])
    y = np.log([point.kl - floor_kl for point in late])
    slope, offset = np.polyfit(x, y, 1)
    if slope >= 0:
        return None
    log_s = (math.log(level - floor_kl) - offset) / slope
    return math.exp(log_s) if log_s < math.log(BEYOND) else None


def level_row(curve: Curve, level: float, alens_s: float, floor_kl: float) -> dict[str, Any]:
    """Seconds to one level, measured or bounded from below, and the ratio to alens's."""
    point = curve.reached(level)
    seconds = point.seconds if point else curve.last.seconds
    row: dict[str, Any] = {
        "level": round(level, 4),
        "reached": point is not None,
        "seconds": round(seconds, 2),
        "ratio": round(seconds / alens_s, 2),
    }
    if point is None:
        far = extrapolated_s(curve, level, floor_kl)
        row["extrapolated_s"] = None if far is None else round(far)
        row["extrapolated_ratio"] = None if far is None else round(far / alens_s, 1)
    return row


def method(curve: Curve, alens: Curve) -> dict[str, Any]:
    """All that is reported of one method."""
    last = curve.last
    # Just below alens's own end, so that a level of 1 % has an excess of its own.
    floor_kl = alens.best.kl * 0.99
    levels = [alens.last.kl * factor for factor in LEVELS]
    alens_s = [(alens.reached(level) or alens.last).seconds for level in levels]
    return {
        "name": curve.name,
        "mends": curve.note,
        "steps": last.steps,
        "seconds_a_step": round(curve.extra.get("steps_s", last.seconds) / last.steps, 4),
        "rows_a_step": round(last.rows / last.steps, 1),
        "kl_at_start": round(curve.points[0].kl, 4),
        "best_kl": round(curve.best.kl, 4),
        "best_at_s": round(curve.best.seconds, 1),
        "last_kl": round(last.kl, 4),
        "trained_s": round(last.seconds, 1),
        "kl_of_sum": None if curve.kl_of_sum is None else round(curve.kl_of_sum, 4),
        "levels": [level_row(curve, level, s, floor_kl) for level, s in zip(levels, alens_s, strict=True)],
        "alens_to_its_best_kl": _alens_to(curve.best.kl, curve.best.seconds, alens),
        "extra": curve.extra,
        "curve": [{k: round(v, 4) for k, v in asdict(point).items()} for point in curve.points],
    }


def _alens_to(kl: float, seconds: float, alens: Curve) -> dict[str, float] | None:
    """When alens was first seen at or below another method's best."""
    point = alens.reached(kl)
    if point is None:
        return None
    return {"seconds": round(point.seconds, 1), "ratio": round(seconds / point.seconds, 2)}


def bound_by_equal_steps(
    published: Curve, vectorised: Curve, alens: Curve, batches: float = 1.0
) -> dict[str, Any]:
    """The published step's lower bound from steps that were taken faster.

    `vectorised` computes the same gradients without the work that the loss does not read, so after as many
    steps both stand at the same KL: what it did not reach in n steps, the published code does not reach in n
    times its own seconds a step. `batches` is how many times `published`'s batch one of those steps takes.
    """
    step_s = batches * published.last.seconds / published.last.steps
    seconds = vectorised.last.steps * step_s
    return {
        "method": vectorised.name,
        "steps_taken_vectorised": vectorised.last.steps,
        "published_seconds_a_step": round(step_s, 3),
        "published_seconds_for_them": round(seconds),
        "kl_after_them": round(vectorised.last.kl, 4),
        "best_kl": round(vectorised.best.kl, 4),
        "ratio_to_alens_at_least": round(seconds / alens.last.seconds, 1),
        "alens_seconds": round(alens.last.seconds, 1),
    }


def markdown(document: dict[str, Any]) -> str:
    """The tables of a run."""
    about, baselines = document["about"], document["baselines"]
    names = [f"+{round(100 * (factor - 1))} %" for factor in LEVELS]
    lines = [
        f"`{about['command']}` on {about['machine']}, {about['threads']} threads, {about['clock']} time, {about['date']}; "
        f"layer {about['layer']}, {about['rows']:,} rows of {about['corpus']}, alens {about['alens']}.",
        "",
        f"Held-out KL of the mean output {baselines['mean_output']:.3f}, of the unembedding {baselines['unembedding']:.3f}; "
        f"levels are over alens's {document['methods'][0]['last_kl']:.4f}.",
        "",
        f"| method | s a step | rows a step | best KL (at s) | KL at end (s) | {' | '.join(f's to {n} (ratio)' for n in names)} |",
        "| --- " * (5 + len(names)) + "|",
    ]
    for method in document["methods"]:
        cells = [_level_cell(level) for level in method["levels"]]
        lines.append(
            f"| {method['name']} | {method['seconds_a_step']:.3f} | {method['rows_a_step']:,.0f} "
            f"| {method['best_kl']:.3f} ({method['best_at_s']:,.0f}) | {method['last_kl']:.3f} ({method['trained_s']:,.0f}) "
            f"| {' | '.join(cells)} |"
        )
    for bound in document["bounds_by_equal_steps"]:
        lines += [
            "",
            f"Bound by equal steps ({bound['method']}): {bound['steps_taken_vectorised']:,} steps would take the published code "
            f"{bound['published_seconds_for_them']:,} s ({bound['published_seconds_a_step']:.2f} s a step), "
            f"{bound['ratio_to_alens_at_least']:,.1f} times alens's {bound['alens_seconds']:,.0f} s, and leave it at {bound['kl_after_them']:.3f}.",
        ]
    if pays := document.get("when_a_cache_pays"):
        lines += [
            "",
            "| layers | stage one, us a row | fit from the cache | fit, model in the loop | passes from which the cache pays |",
        ]
        lines += ["| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {layers} | {row['stage_one']:,.0f} | {row['fit_from_cache']:,.0f} | {row['fit_model_in_loop']:,.0f} | {row['break_even_passes']} |"
            for layers, row in pays.items()
        ]
    return "\n".join(lines) + "\n"


def _level_cell(level: dict[str, Any]) -> str:
    if level["reached"]:
        return (
            f"{level['seconds']:,.0f} ({level['ratio']:,.2g})"
            if level["ratio"] < 10
            else f"{level['seconds']:,.0f} ({level['ratio']:,.0f})"
        )
    far = level["extrapolated_ratio"]
    beyond = "" if far is None else f"; extrapolated {far:,.0f}"
    return f"not in {level['seconds']:,.0f} (> {level['ratio']:,.2g}{beyond})"
