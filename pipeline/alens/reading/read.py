"""`alens.read`: lenses and prompts -> what every head says at every position, in one call.

In: a lens directory or `hf://OWNER/NAME`, lenses that are open, or a `HeadReader`; one prompt or several. Out: a
`PageData`, which a notebook shows as the page of `alens read --html`.
"""

from collections.abc import Sequence
from pathlib import Path

from alens.errors import RequestError
from alens.heads import HeadNames
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses
from alens.reading.head_reader import HeadReader
from alens.reading.page_data import PageData
from alens.reading.page_reader import read_page
from alens.reading.settings import MIN_PROBABILITY, Rank


def read(
    lenses: HeadReader | Lenses | Path | str,
    prompts: str | Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    heads: HeadNames | None = None,
    positions: Sequence[int] | None = None,
    top: int = 8,
    rank: Rank | None = None,
    min_probability: float = MIN_PROBABILITY,
    terms: Sequence[str] = (),
    model: str | None = None,
    store: Path | str | None = None,
    device: str = "auto",
    report: Report = silent,
) -> PageData:
    """Read one prompt or several, at all positions by default.

    Each call loads the model, unless a `HeadReader` is given, which has it. `model`, `store` and `device` are as for
    `HeadReader`, the rest as for its `read`; `terms` are words. Lenses on the hub, and a model that these lenses name by
    its hub id, are fetched where the hub cache lacks them, as the command does; with HF_HUB_OFFLINE=1 nothing is.
    Raises `RequestError` like both.
    """
    if isinstance(lenses, HeadReader):
        if (model, store, device) != (None, None, "auto"):
            raise RequestError(
                "a HeadReader has its model loaded: give model, store and device to HeadReader(...), not to read"
            )
        reader = lenses
    else:
        reader = HeadReader(lenses, model=model, store=store, device=device, report=report)
    return read_page(
        reader,
        [prompts] if isinstance(prompts, str) else prompts,
        layers=layers,
        heads=heads,
        positions=positions,
        top=top,
        rank=rank,
        min_probability=min_probability,
        terms=reader.terms(terms),
        report=report,
    )
