"""A study of one head of the demo that takes little time."""

from pathlib import Path
from typing import Any

from alens import load_lenses
from alens.reading.lensed_model import LensedModel
from alens.store.cache_reader import open_cache
from alens.studies.basis.causal_basis import causal_bases
from alens.studies.basis.result import BasisStudy
from alens.studies.basis.settings import BasisSettings

LAYER, HEAD = 3, 1
QUICK: dict[str, Any] = {"layers": (LAYER,), "heads": (HEAD,), "rows": 128, "sequences": 2}


def study(lenses: Path, cache: Path, **settings: Any) -> BasisStudy:
    reader = LensedModel(load_lenses(lenses), device="cpu")
    return causal_bases(reader, open_cache(cache), settings=BasisSettings(**{**QUICK, **settings}))
