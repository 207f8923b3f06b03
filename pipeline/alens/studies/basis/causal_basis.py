"""Causal bases of heads, and how faithful lenses are to them: what `alens basis` shows.

In: lenses of heads with their model loaded, and a cache of the same model. Out: a `BasisStudy`: for each head the
directions of z with the most influence on the lens's reading, the influence of each on the reading and on the model's
own output, and their rank correlation, the causal fidelity of the head; the same for the bases that it is compared
with.
Source: "Eliciting Latent Predictions from Transformers with the Tuned Lens", arXiv 2303.08112, sections 4 and 4.1,
for heads in place of layers, and in whitened coordinates.
"""

from pathlib import Path

from alens.job.progress import Report, silent
from alens.reading.given import GivenReader, reader_of, settings_of
from alens.store.cache_reader import Cache
from alens.store.opened_cache import opened_cache
from alens.studies.basis.causal_fidelity import layer_fidelity
from alens.studies.basis.head_bases import find_bases
from alens.studies.basis.measured_bases import measure_layer
from alens.studies.basis.result import BasisStudy, HeadBases
from alens.studies.basis.settings import BasisSettings
from alens.studies.basis.study import checked_study


def causal_bases(
    reader: GivenReader,
    cache: Cache | Path | str,
    *,
    settings: BasisSettings | None = None,
    report: Report = silent,
) -> BasisStudy:
    """Find all bases, then measure them, which takes most of the time.

    Raises `RequestError` for what lenses or cache do not have.
    """
    settings = BasisSettings() if settings is None else settings_of(settings, BasisSettings)
    study = checked_study(reader_of(reader), opened_cache(cache), settings)
    heads = list(find_bases(study, report))
    measured: list[HeadBases] = []
    for layer in study.heads.layers:
        of_layer = [head for head in heads if head.layer == layer]
        measured += measure_layer(study, of_layer, report, done=len(measured), total=len(heads))
    return BasisStudy(
        settings=study.settings,
        directions=study.directions,
        rows=len(study.sample.rows_N),
        sequences=len(study.sample.tokens_ST),
        positions=study.positions,
        intervals_over=study.sample.groups.over,
        groups=study.sample.groups.count,
        trained_on=study.trained_on,
        heads=measured,
        layers=[layer_fidelity(layer, measured) for layer in study.heads.layers],
    )
