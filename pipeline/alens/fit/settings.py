"""The settings of a fit, and the request to run it.

`FitSettings` determine the lenses. The other fields of a `FitRequest` do not: where files are, how processes share
the work, the device.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from alens.fields import check
from alens.fit.convergence import TOLERANCE
from alens.heads import HeadNames
from alens.remote.address import refuse
from alens.store.schema import ATTN_Z
from alens.store.stage_settings import StageSettings

Number = Annotated[int, Ge(1)]
"""How many of something."""

EVAL_ROWS = 16_384
"""The most rows to hold out where no number is given."""

Start = Literal["closed-form", "mean-output"]
"""Where lenses start."""

CLOSED_FORM: Start = "closed-form"
MEAN_OUTPUT: Start = "mean-output"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The settings of a fit, as they stand in `fit.json` and `lens.json`."""

    layers: tuple[int, ...] | None = None
    """Layers to fit, such as 0,2,5-7. None: all that are cached."""
    heads: HeadNames | None = None
    """Heads to fit: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5. None: all."""
    site: Literal["attn.z", "resid_post", "mlp_out"] = ATTN_Z
    """What the lenses read: z of each head, or another site that the cache holds."""
    lens: str = "linear"
    """Design of the lens: linear, low-rank, translator, regression, tuned, summed, or module:Class; or effect: what the model
    loses without the head, as `alens effects` measured it; or jacobian: how the residual stream moves with z, as `alens
    jacobians` measured it."""
    lens_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """An option of the design, such as rank=8."""
    objective: str = "forward-kl"
    """The loss: forward-kl, reverse-kl, last-position, input-relevance, or module:Class."""
    objective_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """An option of the objective."""
    teacher: Literal["compressed", "exact"] | None = None
    """Targets to fit to: top k and tail samples, or the whole distribution of a cache with the exact teacher. None: what
    the objective takes first."""
    top_k: Number | None = None
    """Use only this many of the cached top k, as if no more had been cached. None: all."""
    tail_samples: Number | None = None
    """Use only this many tail samples, drawn for that top k. None: all."""
    start: Start | None = None
    """Where lenses start: at the closed form, which needs moments or the exact teacher in the cache, or at the mean output.
    None: the closed form, where there is one."""
    rows: Number | None = None
    """Train on at most this many rows, in whole shards. None: all that are not held out."""
    steps: Number | None = None
    """Take at most this many steps. None: by epochs."""
    epochs: Annotated[float, Gt(0)] = 2.0
    """Make at most this many passes over the training rows, if steps are not given."""
    batch_rows: Number = 1024
    """Rows per step, over all processes. Above 1,024, Adam's decay rates and the default learning rate follow."""
    lr: Annotated[float, Gt(0)] | None = None
    """Learning rate of the first steps, in the design's own coordinates; it decays with the square root of the step.
    None: the design's, lower from the
    closed form, times the root of batch_rows / 1024 above that."""
    tolerance: Annotated[float, Ge(0), Lt(1)] = TOLERANCE
    """Stop a lens when at most this share of its gain over the mean output is still to come; 0 takes all steps."""
    min_position: Annotated[int, Ge(0)] = 1
    """Leave out rows before this position of a sequence: position 0 sees only itself."""
    eval_rows: Number | None = None
    """Rows to hold out for figures, in whole shards; where documents are known, shards of held-out documents. None: a tenth of
    the rows, at most 16,384, and fewer for a design without training."""
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    """Seed of the order of shards, and of what a design draws."""

    def __post_init__(self) -> None:
        check(self)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitRequest:
    """A request to fit lenses."""

    store: Path
    """A cache."""
    lenses: Path
    """The directory to write."""
    settings: FitSettings = dataclasses.field(default_factory=FitSettings)
    stage: StageSettings = dataclasses.field(default_factory=StageSettings)
    """Where copies of what is read of the cache are kept."""
    zero: Annotated[int, Ge(0), Le(3)] | None = None
    """DeepSpeed ZeRO stage: what is partitioned over processes. None: what --deepspeed says, else 0."""
    deepspeed: Path | None = None
    """DeepSpeed configuration: partitioning, offload, bf16, monitors."""
    checkpoint_every: Number = 500
    """Steps between checkpoints."""
    layers_at_once: Number | None = None
    """Fit at most this many layers at a time, group after group. None: as many as the free memory holds."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check(self)
        refuse(self.lenses, "lenses are not written to")
