"""A head whose answer is known by construction is found: planted in a lens, and in the model itself."""

import copy
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from alens import CacheRequest, FitRequest, demo, fit_lenses, load_lenses, write_cache
from alens.fit.settings import FitSettings
from alens.model import models
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt
from alens.reading.terms import Term, to_tokens
from alens.store.schema import CacheSettings
from alens.studies.location.locate import locate
from alens.studies.location.result import Location
from alens.studies.location.settings import LocateSettings

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
LAYER, HEAD = 3, 4
IN_LENS = (0, 1)
"""A head whose z tells the trigger word from others on texts that it was not planted on."""
JUDGED = 10
"""How many prompts of each kind are kept from planting."""
RAISED = LocateSettings(alternative="greater")


@pytest.fixture(scope="module")
def planted() -> Iterator[dict[str, ModuleType]]:
    """The modules that the benchmark plants with, which lie next to it."""
    sys.path.insert(0, str(BENCHMARKS))
    names = ("in_lens", "in_model", "prompts")
    yield {name: importlib.import_module(f"planted.{name}") for name in names}
    sys.path.remove(str(BENCHMARKS))
    for name in [name for name in sys.modules if name.split(".")[0] == "planted"]:
        del sys.modules[name]


class Groups:
    """Stretches of text with a trigger word, and others with some other word; a part to plant, a part to test."""

    def __init__(self, reader: LensedModel, planted: dict[str, ModuleType]) -> None:
        made, tokenizer = planted["prompts"], reader.model.tokenizer
        texts = made.stretches(made.lines(tokenizer), 120, 12, seed=5)
        (self.trigger,) = tokenizer.encode(" money", add_special_tokens=False).ids
        others = [word for word in made.words(tokenizer, 61, seed=5) if word != self.trigger]
        self.ours = [made.with_word(text, self.trigger) for text in texts[:60]]
        self.theirs = [made.with_word(text, word) for text, word in zip(texts[60:], others, strict=False)]
        self.terms: list[Term] = to_tokens(["horse", "garden"], tokenizer)
        self.ids = [token for term in self.terms for token in term.ids]
        self.prompts, self.controls = (
            [Prompt(text=tokenizer.decode(ids), label=None, source="") for ids in group[-JUDGED:]]
            for group in (self.ours, self.theirs)
        )


@pytest.fixture(scope="module")
def groups(reader: LensedModel, planted: dict[str, ModuleType]) -> Groups:
    return Groups(reader, planted)


def first(location: Location) -> tuple[int, int]:
    return location.heads[0].layer, location.heads[0].head


def test_a_head_whose_lens_was_made_to_raise_terms_comes_first(
    reader: LensedModel, planted: dict[str, ModuleType], groups: Groups, tmp_path: Path
) -> None:
    made = planted["in_lens"]
    made.plant(
        reader.lenses.root,
        tmp_path / "lenses",
        layer=IN_LENS[0],
        head=IN_LENS[1],
        terms=groups.ids,
        strength=3.0,
        detector=made.detector(reader, *IN_LENS, groups.ours[:-JUDGED], groups.theirs[:-JUDGED]),
    )
    changed = LensedModel(load_lenses(tmp_path / "lenses"), device="cpu")
    location = locate(changed, groups.terms, groups.prompts, groups.controls, settings=RAISED)
    assert first(location) == IN_LENS and location.heads[0].significant
    assert [each.significant for each in location.heads[1:]] == [False] * 3
    before = locate(reader, groups.terms, groups.prompts, groups.controls, settings=RAISED)
    (same,) = [each for each in before.heads if (each.layer, each.head) == IN_LENS]
    assert not same.significant
    assert location.heads[0].unembedding == same.unembedding  # the model was left as it is


def test_a_planted_model_raises_the_terms_through_its_head_alone(
    reader: LensedModel, planted: dict[str, ModuleType], groups: Groups, tmp_path: Path
) -> None:
    plant(planted, groups, tmp_path / "model")
    changed = copy.copy(reader)  # its lenses are not of this model: only their unembedding is read
    changed.model = models.load(models.find(str(tmp_path / "model")), dtype="float32", device="cpu")
    location = locate(changed, groups.terms, groups.prompts, groups.controls)
    assert location.model.effect > 1.5
    by_output = sorted(
        location.heads, key=lambda each: -(each.unembedding.effect if each.unembedding else 0.0)
    )
    assert (by_output[0].layer, by_output[0].head) == (LAYER, HEAD)
    rest = [each.unembedding for each in by_output[1:]]
    assert all(effect is not None and abs(effect.effect) < 0.5 for effect in rest)


def plant(planted: dict[str, ModuleType], groups: Groups, target: Path) -> None:
    planted["in_model"].plant(
        demo.MODEL,
        target,
        layer=LAYER,
        head=HEAD,
        trigger=groups.trigger,
        terms=groups.ids,
        strength=4.0,
        texts_BT=torch.tensor(groups.ours[:-JUDGED]),
        seed=0,
    )


@pytest.mark.slow
def test_lenses_fitted_on_a_planted_model_find_its_head(
    planted: dict[str, ModuleType], groups: Groups, tmp_path: Path
) -> None:
    plant(planted, groups, tmp_path / "model")
    settings = CacheSettings(max_rows=16384, rows_per_shard=2048, layers=(0, 3), exact_teacher=True)
    store, lenses = tmp_path / "cache", tmp_path / "lenses"
    write_cache(
        CacheRequest(
            model=str(tmp_path / "model"), corpus="demo", store=store, settings=settings, device="cpu"
        )
    )
    fit_lenses(FitRequest(store=store, lenses=lenses, settings=FitSettings(eval_rows=1024), device="cpu"))
    location = locate(
        LensedModel(load_lenses(lenses), device="cpu"), groups.terms, groups.prompts, groups.controls
    )
    assert first(location) == (LAYER, HEAD) and location.heads[0].significant
