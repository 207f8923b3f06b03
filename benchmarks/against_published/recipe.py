"""The published training step as a recipe, and a switch for each of its faults.

`Recipe(name=...)` is the published step; every switch mends one thing. What the published code does was
read in the repository msakarvadia/AttentionLens (docs/benchmarks.md names the files).
"""

from dataclasses import dataclass, fields, replace

COORDINATES = ("output", "z", "white")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to fit the heads of a layer with the model in the loop."""

    name: str
    vectorised: bool = False
    """All heads in one product, at the positions that the loss reads; else a product for each head and position."""
    each_head: bool = False
    """A loss for each head; else the heads' logits are summed before the loss."""
    every_position: bool = False
    """The loss reads every real position from 1 on; else the last column, which is padding in shorter sentences."""
    no_padding: bool = False
    """Packed sequences, the cache's own; else sentences, padded on the right to the longest of the batch."""
    coordinates: str = "output"
    """What the map reads: the head's `output` (D numbers), its `z` (E numbers), or `white`: whitened z."""
    from_mean_output: bool = False
    """Zero weights and the log mean output as bias at the start; else the unembedding and no bias."""
    decay: bool = False
    """The learning rate falls linearly to zero over the budget; else it is constant."""
    lr: float = 1e-3
    """The learning rate of Adam."""
    batch: int = 4
    """Sentences, or packed sequences, a forward pass."""
    accumulate: int = 10
    """Forward passes a step of Adam; their losses are averaged."""

    def __post_init__(self) -> None:
        if self.coordinates not in COORDINATES:
            raise ValueError(
                f"coordinates is {self.coordinates!r}: it must be one of {', '.join(COORDINATES)}"
            )
        if self.coordinates == "white" and not self.from_mean_output:
            raise ValueError("whitened coordinates start from the mean output: switch that on too")
        if self.no_padding and not self.every_position:
            raise ValueError(
                "packed sequences have no sentence's last position: switch every_position on too"
            )

    def mended(self) -> str:
        """What differs from the published step, in words."""
        plain = Recipe(name=self.name)
        switches = [
            f.name.replace("_", " ") if getattr(self, f.name) is True else f"{f.name} {getattr(self, f.name)}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(plain, f.name)
        ]
        return ", ".join(switches) or "nothing"


PUBLISHED = Recipe(name="published")
VECTORISED = replace(PUBLISHED, name="+ vectorised", vectorised=True)
EACH_HEAD = replace(VECTORISED, name="+ a loss for each head", each_head=True)
EVERY_POSITION = replace(EACH_HEAD, name="+ every position", every_position=True)
# 4 sequences of 256 tokens are as many rows a step as `alens fit` takes.
MENDED = replace(EVERY_POSITION, name="+ no padding: faults mended", no_padding=True, accumulate=1)
ON_Z = replace(MENDED, name="+ map on z", coordinates="z")
FROM_MEAN = replace(ON_Z, name="+ from the mean output", from_mean_output=True)
WHITENED = replace(FROM_MEAN, name="+ whitened, alens's rate", coordinates="white", lr=0.03, decay=True)

LADDER = (PUBLISHED, VECTORISED, EACH_HEAD, EVERY_POSITION, MENDED, ON_Z, FROM_MEAN, WHITENED)
"""Each has all switches of the one before it, and one more."""

PUBLISHED_BATCH = replace(VECTORISED, name="+ vectorised, 1,280 sentences a step", accumulate=320)
"""The 1,280 rows a step that the paper reports: with the code's 4 sentences and 10 passes, 32 processes."""

RATES = (
    replace(MENDED, name="faults mended, rate 3e-3", lr=3e-3),
    replace(MENDED, name="faults mended, rate 1e-2", lr=1e-2),
    replace(MENDED, name="faults mended, rate 1e-2, decaying", lr=1e-2, decay=True),
)
"""Other learning rates for the mended step."""

OTHERS = (PUBLISHED_BATCH, *RATES)
"""Beside the ladder: the published batch, and other rates."""
