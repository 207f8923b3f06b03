"""The bases of each head: searched for on held-out rows, or drawn, to be measured on other sequences.

In: a `CheckedStudy`. Out: `SearchedBases` of each head: its coordinates, its lens, and its bases by name.
Shapes: N rows, T tokens, H heads, E d_head, K directions, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from alens.evaluation.baselines import unembedding
from alens.job.progress import Progress, Report
from alens.lens.maps import AffineMaps
from alens.model import activations
from alens.rows import moments
from alens.rows.row_scales import RowScales
from alens.store.cache_reader import ENOUGH_SHARDS
from alens.store.schema import ATTN_Z
from alens.studies.basis.direction_search import Search, find_basis
from alens.studies.basis.lens_influence import HeadLens
from alens.studies.basis.study import CheckedStudy
from alens.studies.basis.subspaces import Coordinates, derangement, random_directions


@dataclass(frozen=True, kw_only=True)
class SearchedBases:
    """One head with its bases, before they are measured."""

    layer: int
    head: int
    coordinates: Coordinates
    lens: HeadLens
    unembedding: HeadLens | None
    """None where it is not compared with."""
    bases: dict[str, torch.Tensor]
    """(K, E) orthonormal directions, by name."""

    def reader(self, basis: str) -> HeadLens:
        """The lens that a basis is measured on: the unembedding on its own basis, else the head's lens."""
        if basis == "unembedding" and self.unembedding is not None:
            return self.unembedding
        return self.lens

    def donors(self, z_NE: torch.Tensor, ablation: str, seed: int) -> torch.Tensor:
        """(N, E) float32: for each row, what takes the place of its features."""
        if ablation == "mean":
            return self.coordinates.mean_E.to(z_NE).expand_as(z_NE)
        return z_NE[torch.from_numpy(derangement(len(z_NE), seed)).to(z_NE.device)]


def find_bases(study: CheckedStudy, report: Report) -> Iterator[SearchedBases]:
    """The bases of each head, layer by layer."""
    settings, device = study.settings, study.reader.model.device
    z_moments = moments.of_cache(study.cache, study.heads.layers, study.cache.shards[:ENOUGH_SHARDS])
    searched = ["lens", *(["unembedding"] if "unembedding" in settings.compare else [])]
    done, total = 0, len(study.heads) * len(searched) * study.directions

    def one_more() -> None:
        nonlocal done
        done += 1
        report(Progress(stage="find directions", done=done, total=total, unit="directions"))

    report(Progress(stage="find directions", total=total, unit="directions"))
    layers = study.heads.layers if "unembedding" in settings.compare else ()
    scales = _typical_scales(study, layers)
    for place, (layer, heads) in enumerate(study.heads.by_layer.items()):
        fitted = study.reader.lenses.layer(layer)
        z_NHE = torch.from_numpy(study.cache.z(layer, study.sample.rows_N)).to(device).float()
        plain = _unembedding(study, layer, scales.get(layer, 1.0))
        for head in heads:
            index = study.reader.lenses.place(layer, head)
            coordinates = Coordinates.from_moments(
                z_moments.mean_LHE[place, head], z_moments.covariance_LHEE[place, head], settings.coordinates
            )
            bases = SearchedBases(
                layer=layer,
                head=head,
                coordinates=coordinates,
                lens=HeadLens(maps=fitted.maps.select([index]).to(device).folded(), index=0),
                unembedding=None if plain is None else HeadLens(maps=plain.select([index]), index=0),
                bases={},
            )
            _fill(bases, study, searched, z_NHE[:, head], one_more)
            yield bases


def _fill(
    head: SearchedBases,
    study: CheckedStudy,
    searched: list[str],
    z_NE: torch.Tensor,
    one_more: Callable[[], None],
) -> None:
    """Put the bases of one head into `head.bases`."""
    settings = study.settings
    for name in searched:
        donors_NE = head.donors(z_NE, settings.ablation, settings.seed)
        search = Search(head.reader(name), z_NE, donors_NE, head.coordinates)
        head.bases[name] = find_basis(search, study.directions, one_more)
    if "principal" in settings.compare:
        head.bases["principal"] = head.coordinates.principal_EE[: study.directions]
    if "random" in settings.compare:
        head.bases["random"] = random_directions(
            study.directions, z_NE.shape[1], settings.seed, head.layer, head.head
        )


def _typical_scales(study: CheckedStudy, layers: Sequence[int]) -> dict[int, float]:
    """By layer, what norms divide by what its lenses read, as the geometric mean over the sequences to measure on."""
    if not layers:
        return {}
    on_z = study.reader.lenses.record.site == ATTN_Z
    with torch.inference_mode():
        runs = [
            activations.run(study.reader.model, torch.from_numpy(tokens_T)[None], layers)
            for tokens_T in study.sample.tokens_ST
        ]
    scales = RowScales.cat([study.reader.scale(run)[study.min_position :] for run in runs])
    by_layer = {layer: scales.write(layer) if on_z else scales.final_N for layer in layers}
    return {layer: float(scale_N.log().mean().exp()) for layer, scale_N in by_layer.items()}


def _unembedding(study: CheckedStudy, layer: int, scale: float) -> AffineMaps | None:
    """The unembedding of all heads of a layer as a lens of z, with one scale of the norms for all rows."""
    model, record = study.reader.model, study.reader.lenses.record
    if "unembedding" not in study.settings.compare or model.final_norm is None:
        return None
    on_z, heads = record.site == ATTN_Z, list(record.lenses.by_layer[layer])
    W_O_HED = model.W_O_LHED[layer, heads].float() if on_z else torch.eye(len(model.W_U_DV))[None]
    maps = unembedding(W_O_HED, model.final_norm, model.W_U_DV.float(), model.b_U_V.float())
    return AffineMaps(weight_HEV=maps.weight_HEV / scale, bias_HV=maps.bias_HV)
