"""Causal bases of heads, and how faithful lenses are to them: what `alens basis` shows.

In: lenses of heads with their model loaded, and a cache of the same model. Out: for each head the directions of z
with the most influence on the lens's reading, the influence of each on the reading and on the model's own output,
and their rank correlation, the causal fidelity of the head; the same for the bases that it is compared with.
Source: "Eliciting Latent Predictions from Transformers with the Tuned Lens", arXiv 2303.08112, sections 4 and 4.1,
for heads in place of layers, and in whitened coordinates.
Shapes: N rows, S sequences, T tokens, P positions that are ablated, L layers, H heads, E d_head, K directions,
A ablations, V vocabulary.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from alens.errors import RequestError
from alens.evaluation.baselines import unembedding
from alens.evaluation.shards import judged_text
from alens.job.progress import Progress, Report, silent
from alens.lens.maps import AffineMaps, LayerLenses
from alens.model import activations
from alens.model.activations import Activations
from alens.reading.lensed import LensedModel
from alens.rows import moments
from alens.store.cache_reader import Cache
from alens.store.cache_statistics import ENOUGH_SHARDS
from alens.store.schema import ATTN_Z
from alens.studies.basis import held_out_sample
from alens.studies.basis.direction_search import Search, find_basis
from alens.studies.basis.held_out_sample import HeldOutSample
from alens.studies.basis.lens_influence import HeadLens, lens_influence
from alens.studies.basis.model_influence import model_influence
from alens.studies.basis.result import BasisStudy, DirectionSet, HeadBases, judge, layer_fidelity
from alens.studies.basis.settings import BasisSettings
from alens.studies.basis.subspaces import Coordinates, derangement, random_directions, removals

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SearchedHead:
    """One head on its way: what was found for it so far."""

    layer: int
    head: int
    coordinates: Coordinates
    lens: HeadLens
    unembedding: HeadLens | None
    """None where it is not compared with."""
    bases: dict[str, torch.Tensor]
    """(K, E) orthonormal directions, by name."""

    def reading(self, basis: str) -> HeadLens:
        """Whose influence is measured along a basis: the unembedding's along its own, else the lens's."""
        if basis == "unembedding" and self.unembedding is not None:
            return self.unembedding
        return self.lens


class CausalBases:
    """A study that was checked against lenses and cache; `run` does the work."""

    def __init__(self, reader: LensedModel, cache: Cache, settings: BasisSettings) -> None:
        """Raises `RequestError` for what lenses or cache do not have."""
        lenses = reader.lenses
        if lenses.record.site != ATTN_Z:
            raise RequestError(
                f"{lenses.name} read {lenses.record.site}: causal bases are of attention heads, take lenses of {ATTN_Z}"
            )
        lenses.check_model(cache.plan.model, f"the model of {cache.root}")
        self.layers, self.heads = reader.chosen(settings.layers, settings.heads)
        cache.check_layers(self.layers)
        width = lenses.record.model.d_head
        self.directions = width if settings.directions is None else settings.directions
        if not max(3, settings.top) <= self.directions <= width:
            raise RequestError(
                f"directions is {self.directions} and top {settings.top}: z of a head has {width} directions"
            )
        self.reader, self.cache, self.settings = reader, cache, settings
        if "unembedding" in settings.compare and reader.no_unembedding is not None:
            raise RequestError(f"{reader.no_unembedding}: leave the unembedding out of --compare")
        self.min_position = int(lenses.record.fit["min_position"])
        self.text = judged_text(lenses, cache)
        self.sample: HeldOutSample = held_out_sample.draw(
            cache,
            self.text,
            num_rows=settings.rows,
            num_sequences=settings.sequences,
            min_position=self.min_position,
            seed=settings.seed,
        )

    def run(self, report: Report = silent) -> BasisStudy:
        """Find all bases, then measure them: the long part."""
        heads = list(self._find(report))
        found: list[HeadBases] = []
        for layer in self.layers:
            here = [head for head in heads if head.layer == layer]
            found += self._measure(here, report, done=len(found), total=len(heads))
        return BasisStudy(
            settings=self.settings,
            directions=self.directions,
            rows=len(self.sample.rows_N),
            sequences=len(self.sample.tokens_ST),
            positions=self.sample.tokens_ST.shape[1] - self.min_position,
            intervals_over=self.sample.groups.over,
            groups=self.sample.groups.count,
            trained_on=self.text.trained_on,
            heads=found,
            layers=[layer_fidelity(layer, found) for layer in self.layers],
        )

    # Directions

    def _find(self, report: Report) -> Iterator[SearchedHead]:
        settings, where = self.settings, self.reader.model.device
        of_z = moments.of_cache(self.cache, self.layers, self.cache.shards[:ENOUGH_SHARDS])
        searched = ["lens", *(["unembedding"] if "unembedding" in settings.compare else [])]
        done, total = 0, len(self.layers) * len(self.heads) * len(searched) * self.directions

        def one_more() -> None:
            nonlocal done
            done += 1
            report(Progress(stage="find directions", done=done, total=total, unit="directions"))

        report(Progress(stage="find directions", total=total, unit="directions"))
        scale = self._typical_scale() if "unembedding" in settings.compare else 1.0
        for place, layer in enumerate(self.layers):
            fitted = self.reader.lenses.layer(layer)
            z_NHE = torch.from_numpy(self.cache.z(layer, self.sample.rows_N)).to(where).float()
            plain = self._unembedding(fitted, scale)
            for head in self.heads:
                index = self.reader.lenses.head_index(head)
                found = SearchedHead(
                    layer=layer,
                    head=head,
                    coordinates=Coordinates.from_moments(
                        of_z.mean_LHE[place, head],
                        of_z.covariance_LHEE[place, head],
                        settings.coordinates,
                    ),
                    lens=HeadLens(maps=fitted.maps.select([index]).to(where), index=0),
                    unembedding=None if plain is None else HeadLens(maps=plain.select([index]), index=0),
                    bases={},
                )
                z_NE = z_NHE[:, head]
                for name in searched:
                    search = Search(found.reading(name), z_NE, self._donors(z_NE, found), found.coordinates)
                    found.bases[name] = find_basis(search, self.directions, one_more)
                if "principal" in settings.compare:
                    found.bases["principal"] = found.coordinates.principal_EE[: self.directions]
                if "random" in settings.compare:
                    found.bases["random"] = random_directions(
                        self.directions, z_NE.shape[1], settings.seed, layer, head
                    )
                yield found

    def _typical_scale(self) -> float:
        """What the last norm divides by, the geometric mean over the sequences that are measured on."""
        with torch.inference_mode():
            runs = [
                activations.run(self.reader.model, torch.from_numpy(tokens_T)[None], [])
                for tokens_T in self.sample.tokens_ST
            ]
        scales = [self.reader.scale(run)[self.min_position :] for run in runs]
        return float(torch.cat(scales).log().mean().exp())

    def _unembedding(self, fitted: LayerLenses, scale: float) -> AffineMaps | None:
        """The unembedding of all heads of a layer, as a lens of z: with one scale of the last norm for all rows."""
        model = self.reader.model
        if "unembedding" not in self.settings.compare or model.final_norm is None:
            return None
        maps = unembedding(fitted, model.final_norm, model.W_U_DV.float(), model.b_U_V.float())
        return AffineMaps(weight_HEV=maps.weight_HEV / scale, bias_HV=maps.bias_HV)

    def _donors(self, z_NE: torch.Tensor, head: SearchedHead) -> torch.Tensor:
        """(N, E) float32: for each row what takes the place of its features."""
        if self.settings.ablation == "mean":
            return head.coordinates.mean_E.to(z_NE).expand_as(z_NE)
        return z_NE[torch.from_numpy(derangement(len(z_NE), self.settings.seed)).to(z_NE.device)]

    # Influences

    def _measure(
        self, heads: Sequence[SearchedHead], report: Report, *, done: int, total: int
    ) -> list[HeadBases]:
        """Of the heads of one layer."""
        layer, S = heads[0].layer, len(self.sample.tokens_ST)
        tokens_ST = torch.from_numpy(self.sample.tokens_ST)
        with torch.inference_mode():
            clean = [activations.run(self.reader.model, tokens_T[None], [layer]) for tokens_T in tokens_ST]
        found = []
        for number, head in enumerate(heads, start=done):

            def one_more(s: int, head: SearchedHead = head, number: int = number) -> None:
                report(
                    Progress(
                        stage="ablate",
                        done=number * S + s + 1,
                        total=total * S,
                        unit="sequences",
                        note=f"head {layer}.{head.head}",
                    )
                )

            found.append(self._measure_head(head, tokens_ST, clean, one_more))
        return found

    def _measure_head(
        self,
        head: SearchedHead,
        tokens_ST: torch.Tensor,
        clean: Sequence[Activations],
        one_more: Callable[[int], None],
    ) -> HeadBases:
        """`clean` are the sequences as they run; `one_more` is told of each that is done."""
        S, P = len(tokens_ST), tokens_ST.shape[1] - self.min_position
        z_NE = torch.cat([run.z_BTHE[head.layer][0, -P:, head.head].float() for run in clean])
        donors_NE = self._donors(z_NE, head)
        # one ablation of all directions of z, then of each basis its directions and its first ones together
        spans = [torch.eye(z_NE.shape[1], dtype=torch.float64)]
        for basis_KE in head.bases.values():
            spans += [*basis_KE[:, None], basis_KE[: self.settings.top]]
        removals_AEE = removals(head.coordinates, spans).to(z_NE.device)
        model_AS = torch.empty(len(spans), S, dtype=torch.float64)
        for s, (tokens_T, run) in enumerate(zip(tokens_ST, clean, strict=True)):
            model_AS[:, s] = model_influence(
                self.reader.model,
                tokens_T,
                run.final_BTD[0],
                layer=head.layer,
                head=head.head,
                donors_PE=donors_NE[s * P : (s + 1) * P],
                removals_AEE=removals_AEE,
            ).sum(-1)
            one_more(s)
        sets, step = [], self.directions + 1
        for place, (name, basis_KE) in enumerate(head.bases.items()):
            mine = [0, *range(1 + place * step, 1 + (place + 1) * step)]
            lens_AN = lens_influence(head.reading(name), z_NE, donors_NE, removals_AEE[mine])
            fidelity, drawn_R = judge(
                name,
                lens_AN.reshape(len(mine), S, P).sum(-1).numpy(),
                model_AS[mine].numpy(),
                positions=P,
                groups_S=self.sample.groups_S,
                seed=self.settings.seed,
            )
            sets.append(
                DirectionSet(
                    fidelity=fidelity,
                    drawn_R=drawn_R,
                    reads_KE=head.coordinates.reads(basis_KE),
                    writes_KE=head.coordinates.writes(basis_KE),
                )
            )
        return HeadBases(
            layer=head.layer,
            head=head.head,
            says_nothing=self.reader.lenses.record.says_nothing(head.layer, head.head),
            mean_E=head.coordinates.mean_E,
            bases=sets,
        )
