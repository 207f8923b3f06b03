"""Which effects or Jacobians of heads to measure, and the requests to do it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from alens.fields import check
from alens.heads import HeadNames
from alens.job.worker import Worker
from alens.remote.address import refuse
from alens.store.paths import SAME_POSITION, Reach


@dataclass(frozen=True, kw_only=True)
class EffectSettings:
    """Which rows and heads of a cache."""

    rows: Annotated[int, Ge(1)] = 4096
    """Rows to measure, as whole sequences from as many documents as there are; rounded up to whole files. Ask for more
    later, and those that are there are kept."""
    layers: tuple[int, ...] | None = None
    """Layers whose heads are measured, such as 18 or 20-24. None: all that are cached."""
    heads: HeadNames | None = None
    """Heads to measure: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class EffectRequest:
    """A request to measure effects of heads of the cache in `store`."""

    store: Path
    """A cache that is sealed: the mean of z is over all of it."""
    settings: EffectSettings = field(default_factory=EffectSettings)
    model: str | None = None
    """Where the model is, if it is not where the cache says."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    worker: Worker = field(default_factory=Worker)

    def __post_init__(self) -> None:
        check(self)
        refuse(self.store, "effects are not written to")


@dataclass(frozen=True, kw_only=True)
class JacobianSettings:
    """Which sequences and heads of a cache, and how far a Jacobian reaches."""

    rows: Annotated[int, Ge(1)] = 4096
    """Rows to measure on, as whole sequences from as many documents as there are, none of them held out; rounded up to whole
    files. Ask for more later, and those that are there are kept."""
    layers: tuple[int, ...] | None = None
    """Layers whose heads are measured, such as 18 or 20-24. None: all that are cached."""
    heads: HeadNames | None = None
    """Heads to measure: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all."""
    reach: Reach = SAME_POSITION
    """Which positions of the residual stream: that of z, or the sum over it and all later ones, which takes more passes."""
    probes: Annotated[int, Ge(1)] = 16
    """Backward passes of each batch of sequences; more where that is too few for every axis of the stream."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class JacobianRequest:
    """A request to measure Jacobians of heads of the cache in `store`."""

    store: Path
    """A cache."""
    settings: JacobianSettings = field(default_factory=JacobianSettings)
    model: str | None = None
    """Where the model is, if it is not where the cache says."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    worker: Worker = field(default_factory=Worker)

    def __post_init__(self) -> None:
        check(self)
        refuse(self.store, "Jacobians are not written to")
