"""What heads say about a prompt, against hooks of TransformerLens and the saved weights."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer_lens import TransformerBridge

from alens import HeadReader, demo, load_lenses
from alens.errors import RequestError
from alens.reading.result import Reading, TokenScore

from .. import documents

PROMPT = "The old man opened the door and said"


@pytest.fixture(scope="module")
def reader(demo_lenses: Path) -> HeadReader:
    return HeadReader(load_lenses(demo_lenses), device="cpu")


@pytest.fixture(scope="module")
def reading(reader: HeadReader) -> Reading:
    return reader.read(PROMPT, positions=[2, -1], top=5, rank="probability")


class Direct:
    """The same numbers, from the bridge and the lens files alone."""

    def __init__(self, lenses: Path, ids: list[int]) -> None:
        bridge = TransformerBridge.boot_transformers(str(demo.MODEL), device="cpu", dtype=torch.float32)
        names = [f"blocks.{layer}.attn.hook_z" for layer in (0, 3)]
        with torch.no_grad():
            logits_BTV, cache = bridge.run_with_cache(
                torch.tensor([ids]), names_filter=lambda name: name in (*names, "ln_final.hook_in")
            )
        self.model_TV = logits_BTV[0].log_softmax(-1)
        self.z = {layer: cache[name][0] for layer, name in zip((0, 3), names, strict=True)}
        self.bridge, self.lenses = bridge, lenses
        self.stream_TD = cache["ln_final.hook_in"][0]

    def lens(self, layer: int, index: int, head: int, position: int) -> torch.Tensor:
        tensors = load_file(self.lenses / f"layer-{layer:02d}.safetensors")
        z_E = self.z[layer][position, head]
        return (z_E @ tensors["weight"][index] + tensors["bias"][index]).log_softmax(-1)

    def unembedding(self, layer: int, head: int, position: int) -> torch.Tensor:
        with torch.no_grad():
            output_D = self.z[layer][position, head] @ self.bridge.W_O[layer, head]
            norm = self.bridge.ln_final.original_component
            scale = (self.stream_TD[position].var(correction=0) + norm.eps).sqrt()
            output_D = (output_D - output_D.mean()) / scale * norm.weight + norm.bias
            return (output_D @ self.bridge.W_U + self.bridge.b_U).log_softmax(-1)


@pytest.fixture(scope="module")
def direct(demo_lenses: Path, reader: HeadReader) -> Direct:
    return Direct(demo_lenses, reader.tokens(PROMPT))


def assert_ranked(scores: list[TokenScore], log_probs_V: torch.Tensor) -> None:
    assert len(scores) == 5
    assert [score.probability for score in scores] == sorted((s.probability for s in scores), reverse=True)
    best = log_probs_V.topk(5).values.exp().tolist()
    assert [score.probability for score in scores] == pytest.approx(best, rel=1e-3)
    for score in scores:
        assert score.probability == pytest.approx(float(log_probs_V[score.id].exp()), rel=1e-3)


def test_every_fitted_head_is_read_at_every_position(reading: Reading, reader: HeadReader) -> None:
    last = len(reader.tokens(PROMPT)) - 1
    expected = [(p, layer, head) for p in (2, last) for layer in (0, 3) for head in (1, 4)]
    assert [(r.position, r.layer, r.head) for r in reading.heads] == expected


def test_the_lens_list_is_z_through_the_saved_weights(reading: Reading, direct: Direct) -> None:
    for head in reading.heads:
        log_probs_V = direct.lens(head.layer, (1, 4).index(head.head), head.head, head.position)
        assert_ranked(head.lens, log_probs_V)


def test_the_unembedding_list_is_the_heads_output_unembedded(reading: Reading, direct: Direct) -> None:
    for head in reading.heads:
        assert_ranked(head.unembedding, direct.unembedding(head.layer, head.head, head.position))


def test_the_models_list_is_its_softmax(reading: Reading, direct: Direct) -> None:
    assert list(reading.model) == reading.positions
    for position, scores in reading.model.items():
        assert_ranked(scores, direct.model_TV[position])


def test_lift_is_probability_over_the_mean_output(reading: Reading, demo_lenses: Path) -> None:
    log_mean_V = load_lenses(demo_lenses).log_mean_output()
    for score in reading.heads[0].lens:
        assert score.lift == pytest.approx(score.probability / math.exp(log_mean_V[score.id]), rel=1e-3)


@pytest.mark.parametrize("floor", [1e-2, 1e-3])
def test_lists_by_lift_hold_what_the_head_raises_most(
    reader: HeadReader, direct: Direct, floor: float
) -> None:
    result = reader.read(PROMPT, positions=[-1], top=5, min_probability=floor)
    assert (result.rank, result.min_probability) == ("lift", floor)
    log_mean_V = reader.lenses.log_mean_output()
    for head in result.heads:
        log_probs_V = direct.lens(head.layer, (1, 4).index(head.head), head.head, head.position)
        probable = int((log_probs_V.exp() >= floor).sum())
        if probable >= 5:
            lift_V = (log_probs_V - log_mean_V).masked_fill(log_probs_V.exp() < floor, -math.inf)
            expected = lift_V.topk(5).indices.tolist()
        else:  # so few are probable that the list takes the most probable
            expected = sorted(
                log_probs_V.topk(5).indices.tolist(), key=lambda i: float(log_mean_V[i] - log_probs_V[i])
            )
        assert [score.id for score in head.lens] == expected
        assert [s.lift for s in head.lens] == sorted((s.lift for s in head.lens), reverse=True)


def test_kl_and_entropy_are_those_of_torch(reading: Reading, direct: Direct) -> None:
    for head in reading.heads:
        model_V = direct.model_TV[head.position]
        lens_V = direct.lens(head.layer, (1, 4).index(head.head), head.head, head.position)
        plain_V = direct.unembedding(head.layer, head.head, head.position)
        for kl, entropy, found_V in (
            (head.lens_kl, head.lens_entropy, lens_V),
            (head.unembedding_kl, head.unembedding_entropy, plain_V),
        ):
            expected = torch.nn.functional.kl_div(found_V, model_V, reduction="sum", log_target=True)
            assert kl == pytest.approx(float(expected), rel=1e-3)
            assert entropy == pytest.approx(
                float(torch.distributions.Categorical(logits=found_V).entropy()), rel=1e-3
            )
        assert reading.model_entropy[head.position] == pytest.approx(
            float(torch.distributions.Categorical(logits=model_V).entropy()), rel=1e-3
        )


def test_the_kl_of_the_mean_output_is_that_of_torch(
    reading: Reading, direct: Direct, demo_lenses: Path
) -> None:
    """The KL of a reading that looks at nothing, at the same position."""
    log_mean_V = load_lenses(demo_lenses).log_mean_output()
    assert log_mean_V is not None and list(reading.mean_output_kl) == reading.positions
    for position, kl in reading.mean_output_kl.items():
        model_V = direct.model_TV[position]
        expected = torch.nn.functional.kl_div(log_mean_V, model_V, reduction="sum", log_target=True)
        assert kl == pytest.approx(float(expected), rel=1e-3)


def test_a_term_has_the_probability_of_its_forms_together(reader: HeadReader, direct: Direct) -> None:
    (term, other) = reader.terms(["the", " door"])
    assert len(term.ids) == 2 and len(other.ids) == 1
    result = reader.read(PROMPT, positions=[-1], layers=[3], heads=[4], terms=[term, other])
    (head,) = result.heads
    log_mean_V = reader.lenses.log_mean_output()
    for scores, log_probs_V in (
        (head.lens_terms, direct.lens(3, 1, 4, head.position)),
        (head.unembedding_terms, direct.unembedding(3, 4, head.position)),
        (result.model_terms[head.position], direct.model_TV[head.position]),
    ):
        assert [score.term for score in scores] == ["the", " door"]
        for score in scores:
            probability = float(log_probs_V[score.ids].exp().sum())
            assert score.probability == pytest.approx(probability, rel=1e-3)
            assert score.lift == pytest.approx(
                probability / float(log_mean_V[score.ids].exp().sum()), rel=1e-3
            )


def without_mean_output(lenses: Path) -> Path:
    """As imported lenses are."""
    (lenses / "output.safetensors").unlink()
    documents.edit(lenses / "lens.json", lambda body: body["files"].pop("output.safetensors"))
    return lenses


def test_lenses_without_a_mean_output_have_no_lift(
    demo_lenses: Path, copy_of: Callable[[Path], Path]
) -> None:
    reader = HeadReader(load_lenses(without_mean_output(copy_of(demo_lenses))), device="cpu")
    result = reader.read("He", top=3, terms=reader.terms(["door"]))
    assert result.rank == "probability" and set(result.mean_output_kl.values()) == {None}
    for head in result.heads:
        assert [s.lift for s in (*head.lens, *head.lens_terms)] == [None] * 4
        assert [s.probability for s in head.lens] == sorted((s.probability for s in head.lens), reverse=True)
    with pytest.raises(RequestError, match=r"lack the model's mean output .* rank by probability"):
        reader.read("He", rank="lift")


def test_tokens_spell_the_prompt(reading: Reading) -> None:
    assert "".join(reading.tokens) == PROMPT


def test_heads_and_layers_can_be_chosen_in_any_order(reader: HeadReader, reading: Reading) -> None:
    result = reader.read(PROMPT, layers=[3], heads=[4, 1], positions=[-1], top=5, rank="probability")
    assert [(r.layer, r.head) for r in result.heads] == [(3, 1), (3, 4)]
    whole = {(r.layer, r.head): r for r in reading.heads if r.position == result.positions[0]}
    for r in result.heads:
        assert [s.id for s in r.lens] == [s.id for s in whole[r.layer, r.head].lens]


def test_the_last_position_is_the_default(reader: HeadReader) -> None:
    result = reader.read("Once upon a time", top=1)
    assert result.positions == [len(result.tokens) - 1]


def test_what_follows_a_position_does_not_change_its_reading(reader: HeadReader) -> None:
    short, long = reader.read("He went", top=3), reader.read("He went to the sea", positions=[1], top=3)
    assert short.positions == long.positions == [1]
    for a, b in zip(short.heads, long.heads, strict=True):
        assert [s.probability for s in a.lens] == pytest.approx([s.probability for s in b.lens], rel=1e-3)


@pytest.mark.parametrize(
    "prompt", ["a [bold]b[/bold]", "sad 😢 face", "x\ny\t\\", "naïve Ω", " ", "<|endoftext|>"]
)
def test_any_text_can_be_read(reader: HeadReader, prompt: str) -> None:
    result = reader.read(prompt, top=2)
    assert result.prompt == prompt and result.tokens
    assert json.loads(json.dumps(result.to_json()))["prompt"] == prompt


def test_a_character_of_several_tokens_is_whole_in_what_stands_before(reader: HeadReader) -> None:
    result = reader.read("a naïve 🙂", positions=[-1], top=1)
    assert result.before == {len(result.tokens) - 1: "a naïve 🙂"}
    assert "".join(result.tokens) != "a naïve 🙂"  # one by one, its bytes are not characters


@pytest.mark.parametrize("position", [4, -5, 1000])
def test_a_position_that_does_not_exist_is_refused(reader: HeadReader, position: int) -> None:
    with pytest.raises(RequestError, match=rf"position {position} does not exist: .* 4 tokens, 0 to 3"):
        reader.read(" the the the the", positions=[position])


def test_an_empty_prompt_is_refused(reader: HeadReader) -> None:
    with pytest.raises(RequestError, match="the prompt is empty"):
        reader.read("")


def test_a_prompt_may_fill_the_model_and_not_a_token_more(reader: HeadReader) -> None:
    longest = load_lenses(reader.lenses.root).record.model.n_ctx
    full = " the" * longest
    assert reader.read(full, top=1).positions == [longest - 1]
    with pytest.raises(RequestError, match=f"has {longest + 1} tokens: demo sees {longest} at most"):
        reader.read(full + " the")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": [1]}, "no lens for layer 1"),
        ({"heads": [0]}, "no lens for head 0"),
        ({"top": 0}, "top is 0: it must be in 1 .. 4096"),
        ({"top": 4097}, "top is 4097"),
        ({"rank": "best"}, "rank 'best' is unknown: give lift or probability"),
        ({"min_probability": 0.0}, "min_probability is 0.0: it must be above 0 and below 1"),
    ],
)
def test_what_the_lenses_lack_is_refused(reader: HeadReader, given: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        reader.read("He", **given)


def test_a_model_that_moved_is_read_where_it_is_now(demo_lenses: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(demo.MODEL, tmp_path / "elsewhere"))
    result = HeadReader(load_lenses(demo_lenses), model=str(moved), device="cpu").read("He", top=1)
    assert result.heads


def test_a_model_that_is_gone_is_asked_for(demo_lenses: Path, tmp_path: Path) -> None:
    lenses = load_lenses(demo_lenses)
    gone = dataclasses.replace(lenses.record.model, id=str(tmp_path / "gone"))
    lenses.record = dataclasses.replace(lenses.record, model=gone)
    with pytest.raises(RequestError, match="say with --model where it is now"):
        HeadReader(lenses, device="cpu")


def test_another_models_weights_are_refused(
    demo_lenses: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    other = copy_of(demo.MODEL)
    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        RequestError, match=r"/model has other weights than the model of .* \(demo\): say with --model"
    ):
        HeadReader(load_lenses(demo_lenses), model=str(other), device="cpu")
