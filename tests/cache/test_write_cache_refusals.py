"""A cache is not continued with another plan, or with damaged plan or tokens: it is refused, and nothing changes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from alens import CacheRequest, demo, write_cache
from alens.errors import DamageError, RequestError, RunError
from alens.store.cache_reader import open_cache

from ..damage import flip
from ..folders import array_hashes, states

Request = Callable[..., CacheRequest]
Copy = Callable[[Path], Path]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seed": 1}, "seed is 1 (the cache: 0)"),
        ({"top_k": 5}, "top_k is 5 (the cache: 4)"),
        ({"layers": None}, "layers is [0, 1, 2, 3] (the cache: [0, 2])"),
        ({"batch_size": 4}, "batch_size is 4 (the cache: 2)"),
        ({"exact_teacher": True}, "exact_teacher is True (the cache: False)"),
        ({"keep_bits": 5}, "keep_bits is 5 (the cache: None)"),
        ({"z_dtype": "int8"}, "z_dtype is int8 (the cache: float16)"),
        ({"sites": ("mlp_out",)}, "sites is "),
        ({"max_rows": None, "tail_samples": 5}, "max_rows is None (the cache: 768); tail_samples is 5"),
    ],
)
def test_other_settings_are_refused_and_nothing_changes(
    small_cache: Path, copy_of: Copy, small_request: Request, settings: dict[str, Any], says: str
) -> None:
    store = copy_of(small_cache)
    before = states(store)
    with pytest.raises(RequestError) as caught:
        write_cache(small_request(store, settings=settings))
    assert f"{store} holds another plan: {says}" in str(caught.value)
    assert states(store) == before


def other_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.attn.c_attn.bias"] += 0.5
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def other_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")


def configured(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | changes))

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (other_weights, "with other weights (the cache: demo)"),
        (other_tokenizer, "the tokenizer is another"),
        (configured(activation_function="relu"), 'with another configuration (activation_function is "relu", not the default)'),
        (configured(layer_norm_epsilon=1e-4), "with another configuration (layer_norm_epsilon is 0.0001, not the default)"),
        (configured(scale_attn_by_inverse_layer_idx=True), "with another configuration (scale_attn_by_inverse_layer_idx is true"),
    ],
)  # fmt: skip
def test_another_model_is_refused(
    small_cache: Path, copy_of: Copy, small_request: Request, edit: Callable[[Path], None], says: str
) -> None:
    store, folder = copy_of(small_cache), copy_of(demo.MODEL)
    edit(folder)
    before = states(store)
    with pytest.raises(RequestError) as caught:
        write_cache(small_request(store, model=str(folder)))
    assert says in str(caught.value)
    assert states(store) == before


def test_another_corpus_is_refused(
    small_cache: Path, copy_of: Copy, small_request: Request, tmp_path: Path
) -> None:
    store = copy_of(small_cache)
    (tmp_path / "other.txt").write_text("other text " * 5000)
    before = states(store)
    with pytest.raises(
        RequestError, match=r"the corpus is .*other\.txt with other files \(the cache: demo\)"
    ):
        write_cache(small_request(store, corpus=str(tmp_path / "other.txt")))
    assert states(store) == before


def test_model_and_corpus_may_have_moved(
    small_cache: Path, copy_of: Copy, small_request: Request, tmp_path: Path
) -> None:
    store = copy_of(small_cache)
    corpus = Path(shutil.copy(demo.CORPUS, tmp_path / "moved.parquet"))
    moved = small_request(store, model=str(copy_of(demo.MODEL)), corpus=str(corpus))
    assert write_cache(moved).shards_written == 0


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_a_damaged_plan_stops_the_run(
    small_cache: Path, copy_of: Copy, small_request: Request, damage: str
) -> None:
    store = copy_of(small_cache)
    text = (store / "plan.json").read_text()
    (store / "plan.json").write_text(
        text[:300] if damage == "cut" else text.replace('"top_k": 4', '"top_k": 5')
    )
    before = states(store)
    with pytest.raises(DamageError, match=r"plan\.json (is not whole|was altered)"):
        write_cache(small_request(store))
    assert states(store) == before


def test_altered_tokens_stop_the_run(small_cache: Path, copy_of: Copy, small_request: Request) -> None:
    store = copy_of(small_cache)
    (store / "commits/000003.json").unlink()
    flip(store / "tokens.npy", -7)
    with pytest.raises(DamageError, match=r"tokens\.npy is missing or altered"):
        write_cache(small_request(store))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (1e5, r"z of layer 2 reaches .* which float16 cannot hold: check the model's weights"),
        (float("nan"), "the final residual of GPT2LMHeadModel is not finite: check the model's weights"),
    ],
)
def test_numbers_that_cannot_be_stored_are_not(
    copy_of: Copy, small_request: Request, tmp_path: Path, value: float, says: str
) -> None:
    folder = copy_of(demo.MODEL)
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    tensors["transformer.h.2.attn.c_attn.bias"][2 * 192 :] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match=says):
        write_cache(small_request(tmp_path / "store", model=str(folder)))
    assert not list(tmp_path.glob("store/commits/[0-9]*.json"))


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_lost_tokens_are_made_again(
    small_cache: Path, copy_of: Copy, small_request: Request, damage: str
) -> None:
    store = copy_of(small_cache)
    (store / "commits/000003.json").unlink()
    whole = (store / "tokens.npy").read_bytes()
    (store / "tokens.npy").unlink()
    if damage == "cut":
        (store / "tokens.npy").write_bytes(whole[:200])
    assert write_cache(small_request(store)).shards_written == 1
    assert array_hashes(store) == array_hashes(small_cache)
    assert open_cache(store).sealed
