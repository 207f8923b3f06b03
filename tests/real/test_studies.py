"""The studies on SmolLM2: each finds on the textbook's prompts what is known of the model, or at least adds up."""

from pathlib import Path

import numpy as np
import pytest

from alens import (
    BasisSettings,
    CompareSettings,
    HeadReader,
    InjectSettings,
    LocateSettings,
    Prompt,
    TransferSettings,
    causal_bases,
    compare,
    inject,
    load_lenses,
    locate,
    open_cache,
    prompt_set,
    transfer,
)

pytestmark = pytest.mark.real

PLACES = ("store", "park", "school", "office", "station", "garden", "market", "church")


def gives(first: str, second: str, place: str) -> str:
    """A prompt whose next token is the first name: the second one gives."""
    return f"When {first} and {second} went to the {place}, {second} gave a drink to"


def test_locate_names_the_heads_that_move_names(real_reader: HeadReader) -> None:
    mary = [Prompt(text=gives("Mary", "John", place)) for place in PLACES]
    john = [Prompt(text=gives("John", "Mary", place)) for place in PLACES]
    settings = LocateSettings(paired=True, permutations=999)
    result = locate(real_reader, real_reader.terms(["Mary"]), mary, john, settings=settings)
    effects = {(head.layer, head.head): head.lens.effect for head in result.heads}
    assert result.model.effect > 2
    assert effects[23, 0] > 0.5 and effects[23, 0] > effects[18, 7]
    assert next(head for head in result.heads if (head.layer, head.head) == (23, 0)).significant


def test_compare_tells_names_that_appear_from_names_that_vanish(real_reader: HeadReader) -> None:
    clean = prompt_set(gives("John", "Mary", "store"))
    result = compare(
        real_reader, clean, prompt_set(gives("Mary", "John", "store")), settings=CompareSettings(top=3)
    )
    assert (result.model.appear[0].token, result.model.vanish[0].token) == (" Mary", " John")
    lenses = {(head.layer, head.head): head.lens for head in result.heads}
    assert lenses[23, 7].appear[0].token == lenses[23, 1].appear[0].token == " Mary"
    assert " Mary" in [token.token for token in lenses[23, 0].appear]
    assert lenses[23, 0].vanish[0].token == " John" and 0 < lenses[23, 0].divergence < np.log(2)


def test_inject_raises_its_token(real_reader: HeadReader) -> None:
    settings = InjectSettings(layer=23, head=0, strength=(-4.0, 0.0, 4.0), random=1)
    result = inject(real_reader, [gives("John", "Mary", "store")], real_reader.terms(["Mary"]), settings)
    for curve in result.curves:
        less, same, more = [point.change.prompts[0].terms[0].probability for point in curve.points]
        assert same == pytest.approx(result.clean.prompts[0].terms[0].probability, rel=1e-4)
        assert less < same < more, curve.by


def test_basis_finds_directions_that_the_model_uses(real_reader: HeadReader, real_cache: Path) -> None:
    settings = BasisSettings(layers=(23,), heads=(0,), directions=8, rows=256, sequences=2)
    study = causal_bases(real_reader, open_cache(real_cache), settings=settings)
    (head,) = study.heads
    lens, chance = (bases.fidelity for bases in head.bases)
    assert (lens.basis, chance.basis) == ("lens", "random") and len(lens.model_influence) == 8
    assert lens.lens_influence[0] == max(lens.lens_influence) > max(chance.lens_influence)
    assert lens.model_whole > 0 and lens.lens_first > chance.lens_first


def test_transfer_puts_each_lens_on_the_heads_of_both_layers(real_lenses: Path, real_cache: Path) -> None:
    settings = TransferSettings(heads=(0, 3, 7), rows=256)
    matrix = transfer(load_lenses(real_lenses), open_cache(real_cache), settings=settings)
    assert matrix.layers == (18, 23) and matrix.kl_ST.shape == (6, 6)
    own = np.diag(matrix.differences("kl"))
    assert np.abs(own).max() < 1e-3
    others = np.delete(matrix.differences("kl")[:, matrix.heads.index((23, 3))], 4)
    assert others.min() > 0  # no other head's lens fits 23.3 as its own does
