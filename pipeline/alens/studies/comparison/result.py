"""The result of `compare`: heads ranked by how their readings change, tokens that appear and vanish, and detectors."""

from dataclasses import dataclass
from typing import Any

from alens.result import Result, chosen
from alens.statistics.separation import Separation

READINGS = {"lens": "lenses", "written": "writes", "effect": "effect lenses"}
"""What the readings of all heads together are called."""


@dataclass(frozen=True, kw_only=True)
class TokenChange:
    """One token that appears or vanishes."""

    token: str
    id: int
    clean: float
    """Its probability in the mean reading of clean prompts."""
    suspect: float
    """Its probability in the mean reading of suspect prompts."""
    share: float
    """What this token contributes to the divergence, over all of it."""


@dataclass(frozen=True, kw_only=True)
class SamplingNoise:
    """A divergence of two finite samples beside chance, with its interval and p-values. Nats."""

    expected: float
    """The mean divergence by chance, when labels are shuffled or signs flipped: the larger of the two."""
    high: float
    """The 95 % quantile of the same."""
    low_of_interval: float
    """Lower end of the 95 % basic bootstrap interval of the divergence."""
    high_of_interval: float
    """Its upper end."""
    p: float
    """Share of draws that are as far apart in units of their noise, the observed one counted; the larger of shuffled
    labels and of flipped signs."""
    p_adjusted: float | None = None
    """The same for the largest change of any head; None for readings that are not ranked."""


@dataclass(frozen=True, kw_only=True)
class ReadingChange:
    """How one reading changes from clean to suspect prompts."""

    divergence: float
    """Jensen-Shannon divergence of the mean readings, nats, at most ln 2 = 0.693."""
    kl: float
    """KL(suspect || clean) of the mean readings, nats."""
    noise: SamplingNoise | None
    """None with a single prompt on a side."""
    appear: list[TokenChange]
    """Tokens that rise, by what they contribute to the divergence."""
    vanish: list[TokenChange]
    """Tokens that fall, the same way."""

    @property
    def above_noise(self) -> float:
        """The divergence minus what chance gives on average."""
        return self.divergence - (self.noise.expected if self.noise else 0.0)


@dataclass(frozen=True, kw_only=True)
class HeadChange:
    """One head: the change by its lens, and by other readings of the same values."""

    layer: int
    head: int
    says_nothing: bool
    """Whether the fit found its lens to do no better than the mean output."""
    lens_kl: float
    """KL(model, lens) in nats, the mean over all prompts, clean and suspect; where several positions are read, of the
    prompt's mean reading."""
    unembedding_kl: float | None
    """KL(model, unembedding), the same way."""
    written_kl: float | None
    """KL(model, written), the same way."""
    effect_kl: float | None
    """KL(model, effect), the same way."""
    lens: ReadingChange
    unembedding: ReadingChange | None
    """None where what heads write cannot be unembedded."""
    written: ReadingChange | None
    """By what the head writes, added to the model's mean output; None unless heads are ranked by it."""
    effect: ReadingChange | None
    """By what its effect lens says that it adds, the same way; None unless heads are ranked by it."""

    def ranked(self, by: str) -> ReadingChange:
        """The change in the reading that heads are ranked by."""
        change: ReadingChange | None = getattr(self, by)
        assert change is not None, "it was asked for"
        return change


@dataclass(frozen=True, kw_only=True)
class HeadDetection:
    """How well one head alone tells suspect prompts from clean ones."""

    layer: int
    head: int
    contrast_auc: float
    anomaly_auc: float


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Detectors, judged on prompts they were not fitted on."""

    judged_by: str
    """How prompts were divided into those to fit on and those to judge; where contrasts are refitted, their areas are
    of ten such divisions."""
    refits: int
    """Fits on prompts drawn with replacement, which give the intervals of contrasts; 0 where --test judges one fit."""
    clean: int
    """Clean prompts that were judged."""
    suspect: int
    """Suspect prompts that were judged."""
    lens_contrast: Separation
    """By all lenses together; fitted on clean and suspect prompts."""
    lens_anomaly: Separation
    """By all lenses together; fitted on clean prompts alone."""
    unembedding_contrast: Separation | None = None
    """By the unembedding of all heads; None where what heads write cannot be unembedded."""
    unembedding_anomaly: Separation | None = None
    written_contrast: Separation | None = None
    """By what all heads write; None unless heads are ranked by it."""
    written_anomaly: Separation | None = None
    effect_contrast: Separation | None = None
    """By the effect lenses of all heads; None unless heads are ranked by them."""
    effect_anomaly: Separation | None = None
    model_contrast: Separation
    """By the model's own output."""
    model_anomaly: Separation
    length: Separation
    """By the number of tokens alone, higher for longer prompts."""
    last_token: Separation
    """By the last token alone: how much more often it ends suspect prompts than clean ones, among those fitted on."""
    heads: list[HeadDetection]
    confounds: list[str]
    """Trivial detectors that separate the sets. If there are any, the figures of lenses prove nothing."""


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """Two sets of prompts, and what reads them differently."""

    clean: str
    """The file of clean prompts, or the prompt."""
    suspect: str
    num_clean: int
    num_suspect: int
    position: str | int
    paired: bool
    resamples: int
    more_draws: int
    """Flipped signs, beside as many shuffled labels as `resamples`; 0 for single prompts."""
    spread_ratio: float | None
    """The spread of suspect readings divided by that of clean ones, geometric mean over heads; None for single
    prompts, and where the readings of some head are all alike."""
    seed: int
    by: str
    """The reading that heads are ranked, tested and judged by."""
    heads: list[HeadChange]
    """The largest change above noise first."""
    model: ReadingChange
    """The change of the model's own output."""
    mean_output_kl: float | None
    """KL(model, mean output) on the same prompts: the KL of a reading that ignores its input. None where the lenses
    lack the mean output."""
    detection: Detection | None
    """None with too few prompts."""
    notes: list[str]
    """What to know before reading the figures."""

    def headline(self) -> str:
        """The numbers of prompts and the head that changes most."""
        first = self.heads[0]
        contrast = None if self.detection is None else getattr(self.detection, f"{self.by}_contrast")
        auc = "" if contrast is None else f", AUC of {READINGS[self.by]} {contrast.auc:.3f}"
        return (
            f"prompts: {self.num_clean} clean, {self.num_suspect} suspect, heads: {len(self.heads)}, "
            f"first {first.layer}.{first.head} by {first.ranked(self.by).divergence:.3f} nats{auc}"
        )

    def telling(self) -> list[dict[str, Any]]:
        """The change of each head in the reading that heads are ranked by, and the tokens that appear and vanish."""
        rows = chosen(
            self.records(),
            *("layer", "head", "says_nothing"),
            *(f"{self.by}.{name}" for name in ("divergence", "noise.expected", "noise.p_adjusted")),
        )
        changes = [head.ranked(self.by) for head in self.heads]
        return [
            row
            | {"appear": [one.token for one in change.appear], "vanish": [one.token for one in change.vanish]}
            for row, change in zip(rows, changes, strict=True)
        ]
