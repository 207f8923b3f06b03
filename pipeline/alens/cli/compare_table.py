"""What `alens compare` prints and draws: the heads that change most, their tokens, and how well detectors do.

In: a `Comparison`. Out: tables and lines for 80 columns, a grid of heads, and curves.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.lens.marks import kl_reference, label, note
from alens.pictures.numbers import fixed, interval, p_value, percent, significant

if TYPE_CHECKING:
    from alens.pictures.head_grid import HeadGrid
    from alens.pictures.roc_curves import Curve
    from alens.studies.comparison.result import Comparison, HeadChange, ReadingChange, TokenChange

UNEQUAL = 2.0
"""From this ratio of spreads on, skewed readings cost the test its level: docs/decisions/0034."""
TOKENS_SHOWN = 4
"""Tokens in a cell of the table; the JSON has all."""
ALPHA = 0.05
"""Heads whose corrected p is at most this are marked in the heat map."""

DETECTORS = {
    "lenses, contrast": "lens_contrast",
    "lenses, anomaly": "lens_anomaly",
    "unembedding, contrast": "unembedding_contrast",
    "unembedding, anomaly": "unembedding_anomaly",
    "written, contrast": "written_contrast",
    "written, anomaly": "written_anomaly",
    "effect lenses, contrast": "effect_contrast",
    "effect lenses, anomaly": "effect_anomaly",
    "model's output, contrast": "model_contrast",
    "model's output, anomaly": "model_anomaly",
    "length alone": "length",
    "last token alone": "last_token",
}
"""The field of each detector, by its name for people."""

CURVES = (
    "lenses, contrast",
    "lenses, anomaly",
    "written, contrast",
    "effect lenses, contrast",
    "model's output, contrast",
    "length alone",
)
"""The detectors whose ROC curves are drawn, where there are any."""


def show_comparison(comparison: "Comparison", most: int) -> None:
    """Print the `most` heads that change most, the detectors, and what to know beside them."""
    from alens.cli.tables import show_table

    noisy, detection = comparison.model.noise is not None, comparison.detection
    aucs = {(one.layer, one.head): one.contrast_auc for one in detection.heads} if detection else {}
    rows = [
        (_name(one, comparison), one.ranked(comparison.by), aucs.get((one.layer, one.head)))
        for one in comparison.heads[:most]
    ]
    rows.append(("model", comparison.model, detection.model_contrast.auc if detection else None))
    chance = ("chance",) if noisy or aucs else ()
    show_table(
        ("head\nKL", "JS\n95 %" if noisy else "JS", *chance, "appear\n(clean>suspect, %)", "vanish"),
        [
            (
                name,
                _divergence(change),
                *(_chance(change, auc) for _ in chance),
                _tokens(change.appear),
                _tokens(change.vanish),
            )
            for name, change, auc in rows
        ],
        title=f"{comparison.num_clean} clean and {comparison.num_suspect} suspect prompts, position {comparison.position}; "
        f"{min(most, len(comparison.heads))} of {len(comparison.heads)} heads\n"
        f"Jensen-Shannon divergence (JS) by {comparison.by} in nats, at most 0.693",
        text=("chance", "appear\n(clean>suspect, %)", "vanish"),
        spaced=True,
    )
    if detection:
        _show_detection(comparison)
    show(*_references(comparison), *(f"note: {known}" for known in comparison.notes))


def head_grid(comparison: "Comparison") -> "HeadGrid":
    """The change of every head, minus what noise alone would give."""
    from alens.pictures.head_grid import HeadGrid

    noisy = comparison.model.noise is not None
    return HeadGrid.from_heads(
        comparison.heads,
        lambda one: one.ranked(comparison.by).above_noise,
        lambda one: _is_significant(one, comparison.by),
        title=f"Change of readings, {comparison.num_clean} clean to {comparison.num_suspect} suspect prompts",
        number_title="divergence less noise, nats" if noisy else "divergence, nats",
        mark_title=f"p at most {ALPHA:g}" if noisy else "",
    )


def roc_curves(comparison: "Comparison") -> tuple[str, dict[str, "Curve"]]:
    """Title and curves of the detectors."""
    judged = comparison.detection
    assert judged is not None  # checked before the work
    detectors = {name: one for name in CURVES if (one := getattr(judged, DETECTORS[name])) is not None}
    curves = {
        f"{name}: AUC {fixed(one.auc)}": (one.false_positive_rate, one.true_positive_rate)
        for name, one in detectors.items()
    }
    return f"{judged.clean} clean, {judged.suspect} suspect prompts: {judged.judged_by}", curves


def _is_significant(one: "HeadChange", by: str) -> bool:
    noise = one.ranked(by).noise
    return noise is not None and noise.p_adjusted is not None and noise.p_adjusted <= ALPHA


def _name(one: "HeadChange", comparison: "Comparison") -> str:
    """Layer and head, above the KL of the reading that heads are ranked by."""
    mean_output_kl, kl = comparison.mean_output_kl, getattr(one, f"{comparison.by}_kl")
    above = ">" if mean_output_kl is not None and kl > mean_output_kl else ""
    return f"{label(one.layer, one.head, one.says_nothing)}\n{above}{fixed(kl, 2)}"


def _references(comparison: "Comparison") -> Iterator[str]:
    """What KL, JS and p are to be compared with."""
    yield from kl_reference(comparison.mean_output_kl, comparison.by)
    if meaning := note((one.layer, one.head) for one in comparison.heads if one.says_nothing):
        yield meaning
    if comparison.model.noise is not None:
        yield "p adj: for the largest change of any head, the larger of two:"
        yield f"by {comparison.resamples:,} relabellings and by {comparison.more_draws:,} sign flips"
    ratio = comparison.spread_ratio
    if ratio is not None and not 1 / UNEQUAL < ratio < UNEQUAL:
        yield f"readings of suspect prompts spread {significant(ratio, 2)} times as much as those of clean"
        yield "ones: p holds if they are not skewed"


def _divergence(change: "ReadingChange") -> str:
    noise, divergence = change.noise, fixed(change.divergence, 4)
    if noise is None:
        return divergence
    return f"{divergence}\n{interval((noise.low_of_interval, noise.high_of_interval), 4)}"


def _chance(change: "ReadingChange", auc: float | None) -> str:
    """What the divergence is to be compared with."""
    lines = [] if auc is None else [f"AUC   {fixed(auc)}"]
    if change.noise is not None:
        p = change.noise.p if change.noise.p_adjusted is None else change.noise.p_adjusted
        lines = [f"noise {fixed(change.noise.expected, 4)}", f"p adj {p_value(p, 3)}", *lines]
    return "\n".join(lines)


def _tokens(changes: "list[TokenChange]") -> str:
    """Each token with its probability before and after, in percent."""
    return "\n".join(
        f"{one.token!r} {percent(one.clean, '')}>{percent(one.suspect, '')}" for one in changes[:TOKENS_SHOWN]
    )


def _show_detection(comparison: "Comparison") -> None:
    from alens.cli.tables import show_table

    judged = comparison.detection
    assert judged is not None
    detectors = {name: getattr(judged, field) for name, field in DETECTORS.items()}
    show_table(
        ("score", "AUC", "95 %", "TPR at 1 %", "at 5 %", "balanced"),
        [
            (
                name,
                fixed(one.auc),
                interval((one.low, one.high)),
                fixed(one.tpr_at_1_percent),
                fixed(one.tpr_at_5_percent),
                fixed(one.balanced_accuracy),
            )
            for name, one in detectors.items()
            if one is not None
        ],
        title=f"detectors, judged on {judged.clean} clean and {judged.suspect} suspect prompts: {judged.judged_by}",
        text=("score",),
    )
    drawn = "over judged prompts, of the detectors as they were fitted"
    if judged.refits:
        drawn = f"contrasts and last token over {judged.refits} refits, the others over judged prompts"
    show("AUC and balanced: 0.5 is chance", f"95 %: {drawn}")
