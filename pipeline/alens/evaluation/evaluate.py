"""`alens eval`: lenses on held-out text, beside two baselines that need no training.

In: a lens directory and a cache. Out, for each head: figures of the lens and of the head's unembedding
(`z W_O W_U + b_U`, the Logit Lens on one head); and of the mean output, which reads nothing. On the cache
of their fit, lenses are judged on the shards that the fit set aside; on any other, on all of it.
Shapes: H heads, E d_head, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from alens.errors import RequestError
from alens.evaluation.figures import FigureSums, HeadFigures
from alens.evaluation.held_out import held_out_rows
from alens.lens.maps import AffineMaps, LensMaps, TranslatedMaps
from alens.lens.saved import LayerLenses, Lenses
from alens.progress import Progress, Report, silent
from alens.rows import RowReader
from alens.store.reader import Cache

RESIDUAL_STREAM = "resid_post"
"""The site that the model's last norm could follow."""

MEAN_OUTPUT_SHARDS = 256


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures by layer and head; every list of heads follows `heads`."""

    rows: int
    """Held-out rows judged on."""
    teacher: str
    """`exact`, or `compressed`: then KL is an unbiased estimate."""
    shards: tuple[int, ...]
    heads: tuple[int, ...]
    lens: dict[int, list[HeadFigures]]
    unembedding: dict[int, list[HeadFigures]]
    mean_output: HeadFigures

    def to_json(self) -> dict[str, Any]:
        """Plain values: one record a head, and the mean output beside them."""
        records = [
            {"layer": layer, "head": head, "lens": asdict(lens), "unembedding": asdict(plain)}
            for layer in self.lens
            for head, lens, plain in zip(self.heads, self.lens[layer], self.unembedding[layer], strict=True)
        ]
        return {
            "rows": self.rows,
            "teacher": self.teacher,
            "shards": list(self.shards),
            "mean_output": asdict(self.mean_output),
            "heads": records,
        }


def evaluate(
    lenses: Lenses,
    cache: Cache,
    *,
    layers: Sequence[int] | None = None,
    num_rows: int | None = None,
    held_out_by: Lenses | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> Evaluation:
    """Judge lenses on a cache of the same model; `held_out_by` are lenses whose held-out shards are judged on.

    Raises `RequestError` when the cache is another model's or lacks a layer.
    """
    lenses.check_model(cache.plan.model.weights_sha256, f"the model of {cache.root}")
    layers = tuple(lenses.record.layers if layers is None else layers)
    for layer in layers:
        lenses.layer(layer)
    shards = _shards(lenses, cache) if held_out_by is None else _held_out(held_out_by, cache)
    teacher = cache.plan.settings.best_teacher
    where = device or torch.device("cpu")
    heads = lenses.record.heads
    min_position = int(lenses.record.fit["min_position"])
    reader = RowReader(cache, layers, heads, teacher, min_position, where, site=lenses.record.site)
    total = len(shards) * reader.rows_per_shard
    total = total if num_rows is None else min(total, num_rows)
    W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).to(where) for name in ("W_U", "b_U"))
    lens = {layer: FigureSums(len(heads), where) for layer in layers}
    plain = {layer: FigureSums(len(heads), where) for layer in layers}
    mean = FigureSums(1, where)
    nothing = AffineMaps(
        weight_HEV=torch.zeros(1, 1, len(b_U_V), device=where),
        bias_HV=_log_mean_output(lenses, cache).to(where)[None],
    )
    done = 0
    for part in held_out_rows(reader, shards, total):
        judged = (part.teacher, part.top_ids_N, part.next_ids_N)
        for layer in layers:
            fitted, z_NHE = lenses.layer(layer), reader.z(part.columns, layer)
            lens[layer].add(z_NHE, fitted.maps.to(where), *judged)
            plain[layer].add(z_NHE, unembedding(fitted, lenses.record.site, W_U_DV, b_U_V), *judged)
        mean.add(torch.zeros(len(part.columns), 1, 1, device=where), nothing, *judged)
        done += len(part.columns)
        report(Progress(stage="eval", done=done, total=total, unit="rows"))
    return Evaluation(
        rows=total,
        teacher=teacher,
        shards=shards,
        heads=heads,
        lens={layer: s.means() for layer, s in lens.items()},
        unembedding={layer: s.means() for layer, s in plain.items()},
        mean_output=mean.means()[0],
    )


def unembedding(fitted: LayerLenses, site: str, W_U_DV: torch.Tensor, b_U_V: torch.Tensor) -> LensMaps:
    """What the model's unembedding says of the same values, the Logit Lens.

    Of a head `z W_O W_U + b_U`. The residual stream is normed first, as the model does; its norm's gain and offset
    are not in a cache and are left out.
    """
    if site == RESIDUAL_STREAM:
        eye_DD = torch.eye(len(W_U_DV), device=W_U_DV.device)
        ones_HD, zeros_HD = torch.ones_like(eye_DD[:1]), torch.zeros_like(eye_DD[:1])
        return TranslatedMaps(
            translator_HED=eye_DD[None],
            shift_HD=zeros_HD,
            gain_HD=ones_HD,
            offset_HD=zeros_HD,
            W_U_DV=W_U_DV,
            b_U_V=b_U_V,
        )
    heads = fitted.maps.num_heads
    weight_HEV = W_U_DV[None] if fitted.W_O_HED is None else torch.matmul(fitted.W_O_HED.to(W_U_DV), W_U_DV)
    return AffineMaps(weight_HEV=weight_HEV, bias_HV=b_U_V.expand(heads, -1))


def _log_mean_output(lenses: Lenses, cache: Cache) -> torch.Tensor:
    """Of the text that the lenses were fitted on; of this cache where they do not say."""
    said = lenses.log_mean_output()
    if said is not None:
        return said
    total_V = sum(cache.read_shard("stats/output", shard)[0] for shard in cache.shards[:MEAN_OUTPUT_SHARDS])
    smallest = np.finfo(np.float32).tiny
    return torch.from_numpy(np.log(np.maximum(total_V / total_V.sum(), smallest))).float()


def _shards(lenses: Lenses, cache: Cache) -> tuple[int, ...]:
    """Held-out shards on the cache of the fit; every committed shard of another."""
    if lenses.record.cache["plan"] == cache.plan.identity:
        return _held_out(lenses, cache)
    if not cache.shards:
        raise RequestError(f"{cache.root} has no committed shard yet: run `alens cache` first")
    return cache.shards


def _held_out(lenses: Lenses, cache: Cache) -> tuple[int, ...]:
    if lenses.record.cache["plan"] != cache.plan.identity:
        raise RequestError(f"{lenses.name} was not fitted on {cache.root}: it held out no shards of it")
    shards = tuple(lenses.record.cache["held_out_shards"])
    missing = [shard for shard in shards if shard not in cache.shards]
    if missing:
        raise RequestError(
            f"{cache.root} lacks shard {missing[0]}, which the fit held out: run `alens cache` again to write it"
        )
    return shards
