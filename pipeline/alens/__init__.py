"""alens reads attention heads: it caches what they compute, fits lenses to it, and reads with them.

| step | call | from | to |
| --- | --- | --- | --- |
| plan | `estimate_cache(CacheRequest(...), store=...)` | a model and a text | bytes, hours, when a cache pays |
| cache | `write_cache(CacheRequest(...))` | a model and a text | a store of z and compressed targets |
| status | `cache_status(open_cache(path))` | a store | how far its jobs are |
| check | `verify_cache(path)` | a store | what is damaged or missing |
| look | `open_cache(path)` | a store | numpy arrays: z, head outputs, targets |
| compress | `measure_fidelity(cache, FidelityRequest())` | a store | what smaller forms of it cost |
| effects | `measure_effects(EffectRequest(...))` | a store, the model | what the model loses without each head |
| fit | `fit_lenses(FitRequest(...))` | a store, no model | a lens directory |
| sweep | `run_sweep(SweepRequest(...))`, `write_sweep_table(...)` | a store | a lens directory for each variant, a table |
| open | `load_lenses(path)` | a lens directory | `Lenses` |
| judge | `evaluate(lenses, cache)` | lenses, a store | held-out figures of each head |
| heads | `score_heads(model)` | the model alone | which head does what |
| read | `read(lenses, prompt)` | lenses, a prompt | the page of all heads, shown in a notebook |
| read | `HeadReader(lenses).read(prompt)` | lenses, the model, a prompt | top tokens of each head |
| page | `write_page(path, read_page(reader, prompts).to_json())` | a reader, prompts | an HTML page |
| atlas | `make_atlas(lenses, cache, path)` | lenses, a store | a page for every head |
| locate | `locate(reader, terms, prompts, controls)` | a reader | heads that raise some terms |
| compare | `compare(reader, prompt_set(...), prompt_set(...))` | a reader | what changes between two sets of prompts |
| inject | `inject(reader, prompts, terms, InjectSettings(...))` | a reader | how the output changes when a head writes more of the terms |
| ablate | `ablate(reader, prompts, AblateSettings(...))` | a reader | how the output changes without some heads |
| basis | `causal_bases(reader, cache)` | a reader, a store | directions that a lens depends on |
| transfer | `transfer(lenses, cache)` | lenses, a store | how well each lens reads other heads |
| export | `export_lenses(lenses, path)` | lenses | safetensors in the paper's form |
| import | `import_lenses(ImportRequest(...))` | published lenses | a lens directory |

Settings are dataclasses with a docstring under each field. Results have a short repr, `to_json()` and `to_frame()`, and show themselves
in a notebook.
Everything raises kinds of `AlensError`. Nothing heavy is imported before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alens.atlas.make_atlas import make_atlas as make_atlas
    from alens.atlas.settings import AtlasSettings as AtlasSettings
    from alens.cache.request import CacheRequest as CacheRequest
    from alens.cache.write_cache import write_cache as write_cache
    from alens.effects.measure_effects import measure_effects as measure_effects
    from alens.effects.settings import EffectRequest as EffectRequest
    from alens.effects.settings import EffectSettings as EffectSettings
    from alens.errors import AlensError as AlensError
    from alens.evaluation.evaluate import evaluate as evaluate
    from alens.evaluation.settings import EvaluateSettings as EvaluateSettings
    from alens.exchange.export import export_lenses as export_lenses
    from alens.exchange.import_lenses import import_lenses as import_lenses
    from alens.exchange.request import ExportRequest as ExportRequest
    from alens.exchange.request import ImportRequest as ImportRequest
    from alens.fidelity.measure import measure_fidelity as measure_fidelity
    from alens.fidelity.request import FidelityRequest as FidelityRequest
    from alens.fit.settings import FitRequest as FitRequest
    from alens.fit.settings import FitSettings as FitSettings
    from alens.fit.training_loop import fit_lenses as fit_lenses
    from alens.lens.lenses import load_lenses as load_lenses
    from alens.pictures.reading_page import write_page as write_page
    from alens.planning.estimate_cache import estimate_cache as estimate_cache
    from alens.reading.head_reader import HeadReader as HeadReader
    from alens.reading.page_reader import read_page as read_page
    from alens.reading.prompts import Prompt as Prompt
    from alens.reading.read import read as read
    from alens.store.cache_reader import open_cache as open_cache
    from alens.store.schema import CacheSettings as CacheSettings
    from alens.store.status import cache_status as cache_status
    from alens.store.verify import verify_cache as verify_cache
    from alens.studies.basis.basis_file import load_directions as load_directions
    from alens.studies.basis.causal_basis import causal_bases as causal_bases
    from alens.studies.basis.settings import BasisSettings as BasisSettings
    from alens.studies.comparison.compare import compare as compare
    from alens.studies.comparison.prompt_sets import prompt_set as prompt_set
    from alens.studies.comparison.settings import CompareSettings as CompareSettings
    from alens.studies.families.score_heads import score_heads as score_heads
    from alens.studies.families.settings import FamilySettings as FamilySettings
    from alens.studies.injection.ablate import ablate as ablate
    from alens.studies.injection.inject import inject as inject
    from alens.studies.injection.settings import AblateSettings as AblateSettings
    from alens.studies.injection.settings import InjectSettings as InjectSettings
    from alens.studies.location.locate import locate as locate
    from alens.studies.location.questions import Question as Question
    from alens.studies.location.questions import read_questions as read_questions
    from alens.studies.location.settings import LocateSettings as LocateSettings
    from alens.studies.transfer.finetuned import transfer_to_copy as transfer_to_copy
    from alens.studies.transfer.settings import TransferSettings as TransferSettings
    from alens.studies.transfer.transfer import transfer as transfer
    from alens.sweep.many_fits import run_sweep as run_sweep
    from alens.sweep.many_fits import write_sweep_table as write_sweep_table
    from alens.sweep.request import SweepRequest as SweepRequest
    from alens.sweep.variants import read_sweep as read_sweep
    from alens.text.corpus import CorpusOptions as CorpusOptions

_HOME = {
    "make_atlas": "alens.atlas.make_atlas",
    "AtlasSettings": "alens.atlas.settings",
    "CacheRequest": "alens.cache.request",
    "write_cache": "alens.cache.write_cache",
    "measure_effects": "alens.effects.measure_effects",
    "EffectRequest": "alens.effects.settings",
    "EffectSettings": "alens.effects.settings",
    "AlensError": "alens.errors",
    "evaluate": "alens.evaluation.evaluate",
    "EvaluateSettings": "alens.evaluation.settings",
    "export_lenses": "alens.exchange.export",
    "import_lenses": "alens.exchange.import_lenses",
    "ExportRequest": "alens.exchange.request",
    "ImportRequest": "alens.exchange.request",
    "measure_fidelity": "alens.fidelity.measure",
    "FidelityRequest": "alens.fidelity.request",
    "FitRequest": "alens.fit.settings",
    "FitSettings": "alens.fit.settings",
    "fit_lenses": "alens.fit.training_loop",
    "load_lenses": "alens.lens.lenses",
    "write_page": "alens.pictures.reading_page",
    "estimate_cache": "alens.planning.estimate_cache",
    "HeadReader": "alens.reading.head_reader",
    "read_page": "alens.reading.page_reader",
    "Prompt": "alens.reading.prompts",
    "read": "alens.reading.read",
    "open_cache": "alens.store.cache_reader",
    "CacheSettings": "alens.store.schema",
    "cache_status": "alens.store.status",
    "verify_cache": "alens.store.verify",
    "load_directions": "alens.studies.basis.basis_file",
    "causal_bases": "alens.studies.basis.causal_basis",
    "BasisSettings": "alens.studies.basis.settings",
    "compare": "alens.studies.comparison.compare",
    "prompt_set": "alens.studies.comparison.prompt_sets",
    "CompareSettings": "alens.studies.comparison.settings",
    "score_heads": "alens.studies.families.score_heads",
    "FamilySettings": "alens.studies.families.settings",
    "ablate": "alens.studies.injection.ablate",
    "inject": "alens.studies.injection.inject",
    "AblateSettings": "alens.studies.injection.settings",
    "InjectSettings": "alens.studies.injection.settings",
    "locate": "alens.studies.location.locate",
    "Question": "alens.studies.location.questions",
    "read_questions": "alens.studies.location.questions",
    "LocateSettings": "alens.studies.location.settings",
    "transfer_to_copy": "alens.studies.transfer.finetuned",
    "TransferSettings": "alens.studies.transfer.settings",
    "transfer": "alens.studies.transfer.transfer",
    "run_sweep": "alens.sweep.many_fits",
    "write_sweep_table": "alens.sweep.many_fits",
    "SweepRequest": "alens.sweep.request",
    "read_sweep": "alens.sweep.variants",
    "CorpusOptions": "alens.text.corpus",
}
"""The module of each name, as above."""

__all__ = list(_HOME)

if not TYPE_CHECKING:  # a type checker would take any name for an attribute

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'alens' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
