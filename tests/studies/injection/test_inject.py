"""Injections and ablations, against transformers with hooks or other weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import load_lenses
from alens.errors import RequestError
from alens.job.progress import Progress
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import to_tokens
from alens.studies.injection.ablate import ablate
from alens.studies.injection.directions import by_lens, by_unembedding
from alens.studies.injection.edit_effects import PromptEffects
from alens.studies.injection.inject import directions, inject
from alens.studies.injection.perplexity import read_windows
from alens.studies.injection.result import NextTokenEffect
from alens.studies.injection.settings import AblateSettings, InjectSettings
from alens.studies.injection.typical import typical
from alens.text.corpus import CorpusOptions, resolve

PROMPT = "The door opened and"


LAYER, HEAD = 3, 4


TEXT_TOKENS = 300


def log_probs(model: Any, ids: list[int]) -> torch.Tensor:
    """(V,) log-probabilities of the next token, by transformers."""
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0, -1]
    return logits.double().log_softmax(-1)


def nats(model: Any, batches: tuple[torch.Tensor, ...]) -> float:
    """The loss per token, by transformers."""
    with torch.no_grad():
        losses = [
            (float(model(b, labels=b).loss), b[:, 1:].numel()) for batch in batches for b in batch.split(1)
        ]
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses)


def assert_is(
    effect: NextTokenEffect, log_probs_V: torch.Tensor, clean_V: torch.Tensor, ids: list[int]
) -> None:
    assert effect.probability == pytest.approx(float(log_probs_V[ids].exp().sum()), rel=1e-3)
    (term,) = effect.terms
    assert term.rank == 1 + int((log_probs_V > log_probs_V[ids].max()).sum())
    kl = float((clean_V.exp() * (clean_V - log_probs_V)).sum())
    assert effect.kl == pytest.approx(kl, rel=1e-2, abs=1e-5)
    best = log_probs_V.topk(len(effect.top))
    assert [n.probability for n in effect.top] == pytest.approx(best.values.exp().tolist(), rel=1e-3)
    assert [n.id for n in effect.top] == best.indices.tolist()


class Adds:
    """A forward hook of transformers that adds to the first output of a module, at some positions."""

    def __init__(self, module: Any, added_D: torch.Tensor, places: slice) -> None:
        self.added_D, self.places = added_D, places
        self.handle = module.register_forward_hook(self.hook)

    def hook(self, module: Any, given: Any, output: Any) -> Any:
        first = (output[0] if isinstance(output, tuple) else output).clone()
        first[:, self.places] += self.added_D
        return (first, *output[1:]) if isinstance(output, tuple) else first


@pytest.mark.parametrize("position", ["all", "last"])
def test_adding_at_a_head_is_a_hook_on_the_attention_of_transformers(
    reader: LensedModel, plain_model: Any, position: str
) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)
    windows = read_windows(resolve("demo", CorpusOptions()), reader.model, TEXT_TOKENS)
    settings = InjectSettings(layer=LAYER, head=HEAD, strength=(3.0,), position=position, random=1)
    injection = inject(reader, [PROMPT], terms, settings, windows=windows)
    here = typical(reader.model, windows.batches, [LAYER])[LAYER, HEAD]
    ids, clean_V = reader.tokens(PROMPT), log_probs(plain_model, reader.tokens(PROMPT))
    clean_nats = nats(plain_model, windows.batches)
    maps = load_lenses(reader.lenses.root).layer(LAYER).maps.select([1])  # heads 1 and 4
    W_O_ED = plain_model.transformer.h[LAYER].attn.c_proj.weight[HEAD * 32 : (HEAD + 1) * 32]
    expected = {
        "lens": by_lens(maps, W_O_ED, here, terms, "gradient"),
        "unembedding": by_unembedding(reader.model, None, here, terms),
    }
    assert [curve.by for curve in injection.curves] == list(expected)
    for curve in injection.curves:
        (point,) = curve.points
        assert point.norm == pytest.approx(3 * here.output_norm)
        added_D = point.norm * expected[curve.by]
        hook = Adds(
            plain_model.transformer.h[LAYER].attn, added_D, slice(-1 if position == "last" else 0, None)
        )
        assert_is(point.change.prompts[0], log_probs(plain_model, ids), clean_V, list(terms[0].ids))
        hook.handle.remove()
        hook = Adds(plain_model.transformer.h[LAYER].attn, added_D, slice(0, None))  # all of the text
        text = point.change.text
        assert text is not None and text.nats == pytest.approx(nats(plain_model, windows.batches), rel=1e-4)
        assert text.added == pytest.approx(text.nats - clean_nats, abs=1e-3)
        hook.handle.remove()
    assert injection.cosine == pytest.approx(float(expected["lens"] @ expected["unembedding"]), abs=1e-4)
    kept_D = expected["unembedding"] @ torch.linalg.pinv(W_O_ED) @ W_O_ED
    assert injection.writable == pytest.approx(float(kept_D @ kept_D), rel=1e-3)


def test_lenses_of_the_residual_stream_add_to_it_after_the_layer(
    residual_lenses: Path, plain_model: Any
) -> None:
    reader = LensedModel(load_lenses(residual_lenses), device="cpu")
    terms = to_tokens(["she"], reader.model.tokenizer)
    settings = InjectSettings(layer=1, strength=(0.5,), random=0, by="unembedding")
    injection = inject(reader, [PROMPT], terms, settings)
    ids = reader.tokens(PROMPT)
    here = typical(reader.model, [torch.tensor([ids])], [1], site="resid_post")[1, None]
    assert injection.unit.norm == pytest.approx(here.output_norm) and injection.unit.rows_of == "prompts"
    clean_V = log_probs(plain_model, ids)
    added_D = 0.5 * here.output_norm * by_unembedding(reader.model, None, here, terms)
    Adds(plain_model.transformer.h[1], added_D, slice(0, None))
    ((point,),) = [curve.points for curve in injection.curves]
    assert_is(point.change.prompts[0], log_probs(plain_model, ids), clean_V, list(terms[0].ids))
    assert injection.writable is None and injection.cosine is None and injection.clean.nats is None


def test_the_written_direction_has_a_curve_of_its_own(reader: LensedModel, residual_lenses: Path) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)
    more: dict[str, Any] = {"layer": LAYER, "strength": (2.0,), "random": 0}
    every, alone = (
        inject(reader, [PROMPT], terms, InjectSettings(head=HEAD, by=by, **more)) for by in ("all", "written")
    )
    assert [curve.by for curve in every.curves] == ["lens", "written", "unembedding"]
    assert [curve.by for curve in alone.curves] == ["written"] and alone.curves[0] == every.curves[1]
    assert every.cosine is not None and alone.cosine is None
    assert every.curves[1].points[0].change.prompts[0].probability > every.clean.prompts[0].probability
    of_stream = LensedModel(load_lenses(residual_lenses), device="cpu")
    with pytest.raises(RequestError, match="reads resid_post: no head writes it, take --by lens"):
        inject(of_stream, [PROMPT], terms, InjectSettings(layer=1, by="written"))


def test_the_direction_of_an_effect_lens_is_asked_for_or_part_of_all(
    reader: LensedModel, effect_reader: LensedModel
) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)
    more: dict[str, Any] = {"layer": LAYER, "strength": (2.0,), "random": 0}
    every, alone = (
        inject(effect_reader, [PROMPT], terms, InjectSettings(head=HEAD, by=by, **more))
        for by in ("all", "effect")
    )
    assert [curve.by for curve in every.curves] == ["lens", "written", "unembedding", "effect"]
    assert [curve.by for curve in alone.curves] == ["effect"] and alone.curves[0] == every.curves[3]
    assert every.curves[3].points[0].change.prompts[0].probability > every.clean.prompts[0].probability
    with pytest.raises(RequestError, match="name them with --effect"):
        inject(reader, [PROMPT], terms, InjectSettings(head=HEAD, by="effect", **more))
    with pytest.raises(RequestError, match=r"of none of the heads 0\.1"):
        inject(effect_reader, [PROMPT], terms, InjectSettings(layer=0, head=1, by="effect"))


def test_a_token_of_two_terms_counts_once(reader: LensedModel) -> None:
    alone, both = (
        PromptEffects(reader, reader.tokens(PROMPT), to_tokens(terms, reader.model.tokenizer), top=1).clean
        for terms in (["she"], ["she", " she"])
    )
    assert both.probability == alone.probability > 0
    assert sum(term.probability for term in both.terms) > both.probability


def test_strength_zero_is_the_model_as_it_is(reader: LensedModel) -> None:
    terms = to_tokens(["she", "he"], reader.model.tokenizer)
    windows = read_windows(resolve("demo", CorpusOptions()), reader.model, 64)
    settings = InjectSettings(layer=0, head=1, strength=(0.0,), random=1)
    injection = inject(reader, [PROMPT, "It was"], terms, settings, windows=windows)
    for curve in (*injection.curves, *injection.random):
        (point,) = curve.points
        assert point.norm == 0.0 and point.change.prompts == injection.clean.prompts
        assert all(effect.kl == 0.0 for effect in point.change.prompts)
        assert point.change.text is not None and point.change.text.added == 0.0


def test_the_lenss_direction_can_be_scaled_and_the_unembeddings_be_kept_in_the_head(
    reader: LensedModel,
) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)
    here = typical(reader.model, [torch.arange(200)[None]], [LAYER])[LAYER, HEAD]
    plain = directions(reader, terms, InjectSettings(layer=LAYER, head=HEAD), here)
    other = directions(
        reader, terms, InjectSettings(layer=LAYER, head=HEAD, scaling="covariance", within_head=True), here
    )
    W_O_ED = reader.model.W_O_LHED[LAYER, HEAD]

    def outside(direction_D: torch.Tensor) -> float:
        return float((direction_D - direction_D @ torch.linalg.pinv(W_O_ED) @ W_O_ED).norm())

    assert not torch.allclose(plain["lens"], other["lens"], atol=1e-2)
    assert outside(plain["unembedding"]) > 0.1
    for name in ("lens", "unembedding", "random 1"):
        assert outside(other[name]) < 1e-4
    assert list(plain) == ["lens", "unembedding", "random 1", "random 2", "random 3"]


def test_random_directions_depend_on_the_seed_alone(reader: LensedModel) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)

    def drawn(seed: int) -> list[float]:
        settings = InjectSettings(layer=LAYER, head=HEAD, strength=(2.0,), random=2, seed=seed, by="lens")
        injection = inject(reader, [PROMPT], terms, settings)
        return [curve.points[0].change.prompts[0].kl for curve in injection.random]

    assert drawn(0) == drawn(0) != drawn(1)


def test_the_last_report_says_that_all_is_done(reader: LensedModel) -> None:
    seen: list[Progress] = []
    settings = InjectSettings(layer=LAYER, head=HEAD, strength=(0.0, 1.0), random=2)
    inject(reader, [PROMPT], to_tokens(["she"], reader.model.tokenizer), settings, report=seen.append)
    assert (seen[-1].done, seen[-1].total) == (
        8,
        8,
    )  # two readings and two random directions, at two strengths


def test_a_single_string_is_not_a_list_of_prompts(reader: LensedModel) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)
    message = f"^prompts is the string {PROMPT!r}: give a list of texts or prompts$"
    with pytest.raises(RequestError, match=message):
        inject(reader, PROMPT, terms, InjectSettings(layer=3, head=0))
    with pytest.raises(RequestError, match=message):
        ablate(reader, PROMPT, AblateSettings(heads=((3, 0),), kind="zero"))


def test_the_result_is_plain_json(reader: LensedModel) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)
    settings = InjectSettings(layer=LAYER, head=HEAD, strength=(1.0,), random=1)
    body = json.loads(json.dumps(inject(reader, [PROMPT], terms, settings).to_json()))
    assert body["unit"]["rows"] == len(reader.tokens(PROMPT)) - 1
    assert body["curves"][0]["points"][0]["change"]["prompts"][0]["terms"][0]["term"] == "she"


def test_a_head_set_to_zero_is_one_without_its_output_weights(reader: LensedModel, plain_model: Any) -> None:
    windows = read_windows(resolve("demo", CorpusOptions()), reader.model, TEXT_TOKENS)
    terms = to_tokens(["she"], reader.model.tokenizer)
    heads = [(0, 1), (3, 4)]
    ablations = ablate(
        reader, [PROMPT], AblateSettings(heads=heads, kind="zero"), terms=terms, windows=windows
    )
    assert [one.heads for one in ablations.ablations] == [((0, 1),), ((3, 4),), ((0, 1), (3, 4))]
    ids, clean_V = reader.tokens(PROMPT), log_probs(plain_model, reader.tokens(PROMPT))
    kept = {name: value.clone() for name, value in plain_model.state_dict().items()}
    for one in ablations.ablations:
        plain_model.load_state_dict(kept)
        for layer, head in one.heads:
            plain_model.transformer.h[layer].attn.c_proj.weight[head * 32 : (head + 1) * 32] = 0
        assert_is(one.change.prompts[0], log_probs(plain_model, ids), clean_V, list(terms[0].ids))
        text = one.change.text
        assert text is not None and text.nats == pytest.approx(nats(plain_model, windows.batches), rel=1e-4)


def test_a_head_set_to_its_mean_is_a_constant_in_the_bias(reader: LensedModel, plain_model: Any) -> None:
    windows = read_windows(resolve("demo", CorpusOptions()), reader.model, TEXT_TOKENS)
    terms = to_tokens(["she"], reader.model.tokenizer)
    ablations = ablate(
        reader, [PROMPT], AblateSettings(heads=((LAYER, HEAD),), kind="mean"), terms=terms, windows=windows
    )
    ids, clean_V = reader.tokens(PROMPT), log_probs(plain_model, reader.tokens(PROMPT))
    output, seen, mine = plain_model.transformer.h[LAYER].attn.c_proj, [], slice(HEAD * 32, (HEAD + 1) * 32)
    hook = output.register_forward_pre_hook(lambda module, given: seen.append(given[0][:, 1:].flatten(0, 1)))
    for batch in windows.batches:
        plain_model(batch)
    hook.remove()
    mean_E = torch.cat(seen)[:, mine].mean(0)
    output.bias += mean_E @ output.weight[mine]
    output.weight[mine] = 0
    (one,) = ablations.ablations
    assert_is(one.change.prompts[0], log_probs(plain_model, ids), clean_V, list(terms[0].ids))
    text = one.change.text
    assert text is not None and text.nats == pytest.approx(nats(plain_model, windows.batches), rel=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": 1, "head": 1}, "no lens for layer 1"),
        ({"layer": 0, "head": 2}, "no lens for head 2"),
        ({"layer": 0}, "no head was named"),
        ({"layer": 0, "head": 1, "top": 5000}, "top is 5000"),
    ],
)
def test_what_the_lenses_lack_is_refused(reader: LensedModel, given: dict[str, int], message: str) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)
    with pytest.raises(RequestError, match=message):
        inject(reader, [PROMPT], terms, InjectSettings(**given))


def test_a_covariance_is_not_taken_from_a_prompt(reader: LensedModel) -> None:
    terms = to_tokens(["she"], reader.model.tokenizer)
    with pytest.raises(RequestError, match="needs the head's covariance over a text"):
        inject(reader, [PROMPT], terms, InjectSettings(layer=LAYER, head=HEAD, scaling="covariance"))
    with pytest.raises(RequestError, match="no tokens were named"):
        inject(reader, [PROMPT], [], InjectSettings(layer=LAYER, head=HEAD))


def test_lenses_of_the_residual_stream_have_no_head(residual_lenses: Path) -> None:
    reader = LensedModel(load_lenses(residual_lenses), device="cpu")
    terms = to_tokens(["she"], reader.model.tokenizer)
    with pytest.raises(RequestError, match="reads resid_post, not heads: leave the head out"):
        inject(reader, [PROMPT], terms, InjectSettings(layer=1, head=0))
    with pytest.raises(RequestError, match="no head bounds what can be written"):
        inject(reader, [PROMPT], terms, InjectSettings(layer=1, within_head=True))


def test_heads_that_the_model_lacks_cannot_be_ablated(reader: LensedModel) -> None:
    with pytest.raises(RequestError, match=r"has no head 4\.0: it has layers 0 to 3, heads 0 to 5"):
        ablate(reader, [PROMPT], AblateSettings(heads=((4, 0),), kind="zero"))
    with pytest.raises(RequestError, match=r"a mean ablation needs the mean z of head 0\.0, which"):
        ablate(reader, [PROMPT], AblateSettings(heads=((0, 0),), kind="mean"))
    with pytest.raises(RequestError, match="no head was named"):
        AblateSettings(heads=(), kind="zero")
