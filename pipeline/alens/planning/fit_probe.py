"""A fit of some heads of one layer, made from the rows that a plan computed, for timing.

In: the model, the arrays of some rows. Out: `FitProbe`: the module of a fit with the default settings, and as many rows as
are wanted, repeated where they are few.
Shapes: N rows, H heads, E d_head, D d_model, V vocabulary.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from alens.evaluation.reference import Reference
from alens.fit import plugin
from alens.fit.lens_module import LensModule
from alens.fit.objectives import OBJECTIVES
from alens.fit.objectives.objective import Objective
from alens.fit.settings import MEAN_OUTPUT, FitSettings
from alens.lens.designs import DESIGNS
from alens.lens.designs.design import Design, Ground
from alens.lens.maps import OLD_NORM
from alens.lens.whitening import Whitening
from alens.model.models import LoadedModel
from alens.planning.model_rates import ModelRates
from alens.rows import moments
from alens.rows.agreement import ModelChoice
from alens.rows.final_norm import FinalNorm
from alens.rows.teacher import CompressedTeacher, ExactTeacher, Teacher
from alens.store.arrays import scale_name, site_name, statistic_name
from alens.store.cache_reader import Targets, log_shares
from alens.store.encoding import dequantise


class FitProbe:
    """Attributes: `settings`, the default ones; `layer`, the first that is cached; `device`; `num_heads` of the model."""

    def __init__(self, model: LoadedModel, rates: ModelRates) -> None:
        self.settings, self.device = FitSettings(), model.device
        self.layer, self.num_heads = rates.plan.layers[0], rates.plan.model.n_heads
        self._model, self._arrays, self._plan = model, rates.arrays, rates.plan
        self._design = plugin.find("lens", self.settings.lens, DESIGNS, Design)
        self.objective: Objective = plugin.make(
            "objective",
            self.settings.objective,
            plugin.find("objective", self.settings.objective, OBJECTIVES, Objective),
            self.settings.objective_options,
        )
        self.lr = self.settings.lr or self._design.default_lr

    @property
    def at_closed_form(self) -> bool:
        """Whether lenses start at the closed form."""
        return self._design.starts_at_closed_form and self.settings.start != MEAN_OUTPUT

    def module(self, heads: int) -> LensModule:
        """The lenses of the first heads of the layer, at their start."""
        arrays = self._arrays
        counted = max(1, int((arrays["rows/position"] > 0).sum()))
        sum_HE, outer_HEE = (
            arrays[statistic_name(self.layer, which)][0, :heads] for which in ("sum", "outer")
        )
        mean_HE, covariance_HEE = moments.of_sums(sum_HE, outer_HEE, counted)
        ground = Ground(
            whitening=Whitening.from_moments(mean_HE, covariance_HEE).to(self.device),
            log_mean_output_V=torch.from_numpy(log_shares(arrays["stats/output"][0])).to(self.device),
            unembedding=lambda: self._unembedding,
            final_norm=lambda: self._final_norm,
            layer=self.layer,
        )
        design = plugin.make("lens", self.settings.lens, self._design, self.settings.lens_options, ground)
        return LensModule({self.layer: design}, self.objective).to(self.device)

    def z(self, rows: int, heads: int) -> torch.Tensor:
        """(N, H, E) values of the first heads."""
        chosen = self._chosen(rows)
        z_NHE = self._arrays[site_name(self.layer)][chosen, :heads]
        if self._plan.settings.z_dtype == "int8":
            z_NHE = dequantise(z_NHE, self._arrays[scale_name(self.layer)][chosen, :heads])
        return torch.from_numpy(z_NHE).to(self.device)

    def teacher(self, rows: int) -> Teacher:
        """What the rows are fitted to."""
        kind = self.settings.teacher or self.objective.teachers[0]
        return (
            self._exact(rows)
            if kind == "exact" and self._plan.settings.exact_teacher
            else self._compressed(rows)
        )

    def reference(self, rows: int) -> Reference:
        """What readings of the rows are held against at the end of a fit."""
        exact, chosen = self._plan.settings.best_teacher == "exact", self._chosen(rows)
        ids_NK, log_probs_NK = (self._tensor(f"targets/{name}", chosen) for name in ("ids", "log_probs"))
        return Reference(
            teacher=self._exact(rows) if exact else self._compressed(rows),
            first=ModelChoice.of(ids_NK.long(), log_probs_NK.float(), 1, self._plan.model.d_vocab),
            next_ids_N=ids_NK[:, 0].long(),
        )

    def _exact(self, rows: int) -> ExactTeacher:
        final_ND, entropy_N = (self._tensor(f"targets/{n}", self._chosen(rows)) for n in ("final", "entropy"))
        return ExactTeacher(final_ND, *self._unembedding, entropy_N, cap=self._plan.model.logit_cap)

    def _compressed(self, rows: int) -> CompressedTeacher:
        names, chosen = ("ids", "log_probs", "logsumexp", "entropy", "tail_ids"), self._chosen(rows)
        ids, log_probs, logsumexp, entropy, tail_ids = (self._arrays[f"targets/{n}"][chosen] for n in names)
        targets = Targets(
            ids_NK=ids, log_probs_NK=log_probs, logsumexp_N=logsumexp, entropy_N=entropy, tail_ids_NM=tail_ids
        )
        return CompressedTeacher.from_targets(targets, self.device)

    def _chosen(self, rows: int) -> npt.NDArray[np.int64]:
        return np.resize(np.arange(self._plan.rows), rows)

    def _tensor(self, name: str, chosen: npt.NDArray[np.int64]) -> torch.Tensor:
        values = self._arrays[name][chosen]
        return torch.from_numpy(values.astype("int64") if values.dtype.kind == "u" else values).to(
            self.device
        )

    @cached_property
    def _unembedding(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._model.W_U_DV.float(), self._model.b_U_V.float()

    @property
    def _final_norm(self) -> FinalNorm:
        norm = self._model.final_norm
        return norm or FinalNorm.bare(OLD_NORM, self._model.W_U_DV.shape[0]).to(self.device)
