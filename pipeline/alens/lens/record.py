"""`lens.json`: what lenses are, what they were fitted on, and how well they do. Needs no torch."""

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from alens.heads import Heads, HeadsJson
from alens.result import Result, number_of, plain
from alens.store import typed
from alens.store.model_record import ModelRecord
from alens.store.schema import ATTN_Z

FORMAT = 3
BY_LAYER_FORMAT = 4
"""The format of lenses whose layers have different heads: only these have it, so that an older alens refuses them."""
UNHASHED_FORMAT = 2
"""The format from before `lens.json` held its own hash: it is still read, and reported as unchecked."""

EFFECT = "effect"
"""The form and design of effect lenses (`effect_lenses.py`), which say what a head adds to logits and have no maps to a
distribution; also the tensor of a layer's file."""

JACOBIAN = "jacobian"
"""The same of Jacobian lenses, which say it to first order."""

ADDITIONS = EFFECT, JACOBIAN
"""The forms of lenses that say what a head adds to the logits, and have no maps to a distribution."""


@dataclass(frozen=True, kw_only=True)
class LensRecord(Result):
    """`lens.json`: what these lenses are, what they were fitted on and how well they do."""

    __pydantic_config__ = typed.STRICT

    design: str
    """The form of the map in training; `fit` has its options. `imported`: they came from elsewhere."""
    form: str
    """What the files hold: `affine`, `unembedded` (a map, the unembedding), `translated` (a norm between the two), or
    `effect` and `jacobian` (maps to a change of the final residual; `jacobian` at a last norm that divides by 1)."""
    site: str
    """What the lenses read: `attn.z`, or a site of the residual stream."""
    objective: str | None
    """None for imported lenses whose publication does not say."""
    model: ModelRecord
    """The model of the cache that they were fitted on."""
    cache: dict[str, Any]
    """The plan's identity, the fingerprint (None if the cache was not sealed), the corpus, the shards that were trained
    on and held out; None and empty where there was no cache."""
    layers: tuple[int, ...]
    heads: HeadsJson
    """Head numbers, the same in each layer, or by layer where layers have different heads; the first axis of every tensor
    follows them. `lenses` has both cases as one."""
    fit: dict[str, Any]
    """The settings of the fit, steps taken and rows seen."""
    held_out: dict[str, Any]
    """Held-out figures by layer, one entry for each head: KL and cross-entropy in nats, top-1 agreement. `says_nothing`
    is true for a lens that does no better than the mean output, and absent otherwise."""
    files: dict[str, dict[str, Any]]
    """Size and SHA-256 of each file."""
    software: dict[str, str]
    tokenizer_sha256: str | None = None
    """The hash of the tokenizer that made the tokens, as in the plan. None in lenses from before it was kept."""
    bos: int | None = None
    """The token that each sequence of the cache began with; prompts begin with it too. None: there was none, or the
    lenses are from before it could be."""
    mean_output_kl: float | None = None
    """KL of the model's mean output on the same held-out rows, in nats: what a lens must beat. None in lenses from
    before it was written down."""

    @cached_property
    def lenses(self) -> Heads:
        """The heads that have lenses."""
        return Heads.from_json(self.layers, self.heads)

    def headline(self) -> str:
        """Design, model and number of lenses, and how well they do."""
        kl = [head["kl"] for head in self.records()]
        mean = f", mean held-out KL {sum(kl) / len(kl):.3f} nats" if kl else ""
        return (
            f"{number_of(len(self.lenses), f'{self.design} lens', f'{self.design} lenses')} of "
            f"{number_of(len(self.layers), 'layer')} of {self.model.id}{mean}"
        )

    def to_json(self) -> dict[str, Any]:
        """What `lens.json` holds beside its hash."""
        by_layer = isinstance(self.heads, dict)
        return {"format": BY_LAYER_FORMAT if by_layer else FORMAT, **plain(dataclasses.asdict(self))}

    def records(self) -> list[dict[str, Any]]:
        """One record for each head: its held-out figures."""
        return [
            {"layer": int(layer), "head": head, "says_nothing": False, **figures}
            for layer, heads in self.held_out.items()
            for head, figures in zip(self.lenses.by_layer[int(layer)], heads, strict=True)
        ]

    def telling(self) -> list[dict[str, Any]]:
        """The records, the lowest held-out KL first."""
        return sorted(self.records(), key=lambda head: float(head["kl"]))

    def says_nothing(self, layer: int, head: int) -> bool:
        """Whether this lens did no better in its fit than the mean output, which reads nothing.

        False where that is not known. Raises `KeyError` or `ValueError` for a lens that is not in the record.
        """
        figures = self.held_out[str(layer)] if self.held_out else None
        return figures is not None and bool(
            figures[self.lenses.place(layer, head)].get("says_nothing", False)
        )

    def __post_init__(self) -> None:
        """Raises `TypeError`: what is read may come from anywhere."""
        for name in ("cache", "fit", "held_out", "files", "software"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} is not an object")
        by_layer = self.heads.values() if isinstance(self.heads, dict) else [self.heads]
        for name, numbers in (("layers", self.layers), *(("heads", numbers) for numbers in by_layer)):
            _check_naturals(name, numbers)
        lenses = self.lenses
        for name in ("train_shards", "held_out_shards"):
            _check_naturals(f"cache.{name}", self.cache.get(name) or ())
        for name in ("min_position", "steps", "rows_seen"):
            if self.fit.get(name) is not None:
                _check_naturals(f"fit.{name}", [self.fit[name]])
        if self.site != ATTN_Z and lenses.shared != (0,):
            raise TypeError(f"{self.site} has no heads")
        files: dict[str, Any] = dict(self.files)
        if not all(isinstance(file, dict) and type(file.get("bytes")) is int for file in files.values()):
            raise TypeError("files have no sizes")
        if self.held_out and not self._has_figures():
            raise TypeError("held_out has no figures of each head")
        if not isinstance(self.tokenizer_sha256, str | None):
            raise TypeError("tokenizer_sha256 is not a string")
        if self.bos is not None:
            _check_naturals("bos", [self.bos])
            if self.bos >= self.model.d_vocab:
                raise TypeError(f"bos is {self.bos}, of {self.model.d_vocab} tokens")
        if self.mean_output_kl is not None and not _is_number(self.mean_output_kl):
            raise TypeError("mean_output_kl is not a number")

    def _has_figures(self) -> bool:
        """Whether `held_out` has the figures that are shown, for each head."""
        names = ("kl", "cross_entropy", "top1_agreement")
        sizes = {str(layer): len(numbers) for layer, numbers in self.lenses.by_layer.items()}
        return all(
            isinstance(heads, list)
            and len(heads) == sizes.get(layer)
            and all(isinstance(head, dict) and all(_is_number(head.get(n)) for n in names) for head in heads)
            for layer, heads in self.held_out.items()
        )


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(cast(float, value))


def _check_naturals(name: str, numbers: object) -> None:
    """Raises `TypeError` unless these are whole numbers, 0 or more."""
    if not isinstance(numbers, list | tuple) or any(type(n) is not int or n < 0 for n in numbers):
        raise TypeError(f"{name} is {numbers!r}: it must be whole numbers, 0 or more"[:200])
