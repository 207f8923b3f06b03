import fnmatch
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import CacheRequest, demo, write_cache
from alens.errors import RequestError
from alens.model import models
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings


def test_the_record_of_the_demo() -> None:
    record = models.find("demo").record
    assert (record.id, record.revision, record.architecture) == ("demo", None, "GPT2LMHeadModel")
    assert (record.n_layers, record.n_heads, record.d_head) == (4, 6, 32)
    assert (record.d_model, record.d_vocab, record.n_ctx) == (192, 4096, 256)
    assert record.weight_processing == "none"


def test_a_copy_is_the_same_model(folder: Path) -> None:
    copied, original = models.find(str(folder)), models.find("demo")
    assert copied.record.weights_sha256 == original.record.weights_sha256
    assert copied.tokenizer_sha256 == original.tokenizer_sha256


def test_the_same_weights_in_two_files_are_the_same_model(folder: Path) -> None:
    before = models.find(str(folder)).record.weights_sha256
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    place = {}
    for number, part in enumerate((names[:7], names[7:])):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        place |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    assert models.find(str(folder)).record.weights_sha256 == before


def test_one_changed_weight_is_another_model(folder: Path) -> None:
    before = models.find(str(folder)).record.weights_sha256
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.2.attn.c_proj.bias"][5] += 1e-3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert models.find(str(folder)).record.weights_sha256 != before


def test_a_changed_tokenizer_is_another_tokenizer(folder: Path) -> None:
    before = models.find(str(folder)).tokenizer_sha256
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert models.find(str(folder)).tokenizer_sha256 != before


def test_a_loaded_model_is_frozen_and_unprocessed() -> None:
    model = models.load(models.find("demo"), dtype="float32", device="cpu")
    stored = {name: tensor.float() for name, tensor in load_file(demo.MODEL / "model.safetensors").items()}
    assert not any(weight.requires_grad for weight in model.bridge.parameters())
    assert not model.bridge.training
    expected = stored["transformer.h.1.attn.c_proj.weight"].reshape(6, 32, 192)
    torch.testing.assert_close(model.W_O_LHED[1], expected, rtol=0, atol=0)
    torch.testing.assert_close(model.W_U_DV, stored["transformer.wte.weight"].T, rtol=0, atol=0)
    assert model.end_of_text == 0
    assert model.tokenizer.decode([model.end_of_text], skip_special_tokens=False) == "<|endoftext|>"


Edit = Callable[[Path], object]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: (m / "config.json").unlink(), "is not a model directory: it has no config.json"),
        (lambda m: (m / "config.json").write_text("{"), "config.json is not a model configuration"),
        (lambda m: (m / "config.json").write_text("{}"), "config.json is not a model configuration"),
        (lambda m: (m / "config.json").write_text('{"model_type": "gpt2"}'), "names no architecture"),
        (lambda m: (m / "model.safetensors").unlink(), "has no model.safetensors and no model.safetensors.index.json"),
        (lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"), "pickled weights are not loaded"),
        (lambda m: (m / "model.safetensors").write_bytes(b""), "is not a readable safetensors file"),
        (lambda m: (m / "model.safetensors").write_bytes(b"\x08" * 99), "is not a readable safetensors file"),
        (lambda m: (m / "tokenizer.json").unlink(), "has no tokenizer"),
    ],
)  # fmt: skip
def test_a_directory_that_is_not_a_whole_model_is_refused(folder: Path, edit: Edit, says: str) -> None:
    edit(folder)
    with pytest.raises(RequestError, match=says.replace(".", r"\.")):
        models.find(str(folder))


BROKEN: list[Any] = [
    {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},  # a panic in Rust, which is not an Exception
    {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "X", "type_id": 0}}], "pair": [], "special_tokens": {}}},
    {"model": {"type": "Unigram", "unk_id": 5, "vocab": [["a", 0.0]]}},
    {"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0}}},
    {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
    {"model": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", BROKEN, ids=["charsmap", "template", "unigram", "word", "regex", "null"])
def test_a_broken_tokenizer_is_one_line(
    folder: Path, changes: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    body = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**body, **changes}))
    with pytest.raises(RequestError, match="cannot load the tokenizer in") as refused:
        models.load_tokenizer(models.find(str(folder)))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


def test_a_garbled_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(RequestError, match="cannot load the tokenizer in"):
        models.load_tokenizer(models.find(str(folder)))


def test_a_token_beyond_the_models_is_refused_where_it_occurs(folder: Path, tmp_path: Path) -> None:
    """A tokenizer with one more token than the model, for padding, is ordinary."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 4096, "content": "<|more|>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    sentences = ["The king went to the house by the river."] * 200
    settings = CacheSettings(
        seq_len=16, rows_per_shard=64, max_rows=256, layers=(0,), top_k=4, tail_samples=4
    )

    def write(name: str) -> Cache:
        (tmp_path / f"{name}.txt").write_text("\n".join(sentences))
        store = tmp_path / name
        corpus = str(tmp_path / f"{name}.txt")
        request = CacheRequest(model=str(folder), corpus=corpus, store=store, settings=settings, device="cpu")
        return write_cache(request).cache

    assert write("without").sealed
    sentences[:] = [f"{sentence} <|more|>" for sentence in sentences]
    says = r"the text has the token '<\|more\|>', number 4,096, and the model's vocabulary ends at 4,095: tokenizer"
    with pytest.raises(RequestError, match=says):
        write("within")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/no/such/model", "/no/such/model does not exist"),
        ("no-such-model", "no-such-model is not a file or directory here, the hub cache .* has no copy"),
        ("no/such", "no/such is not a file or directory here"),
        ("a/b/c", "a/b/c does not exist"),
    ],
)
def test_a_model_that_is_not_there_is_refused(name: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        models.find(name)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(RequestError, match=f"device .*{device}"):
        models.load(models.find("demo"), dtype="float32", device=device)


def test_of_a_hub_model_only_what_is_loaded_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in several files are fetched in a second step, by the names in their index; `consolidated.safetensors` never."""
    remote, commit = Path(shutil.copytree(demo.MODEL, tmp_path / "remote")), "a" * 40
    shutil.copyfile(remote / "model.safetensors", remote / "consolidated.safetensors")
    (remote / "model.safetensors").rename(remote / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(
        load_file(remote / "consolidated.safetensors"), "model-00001-of-00001.safetensors"
    )
    (remote / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    asked = []

    def fetch(name: str, *, revision: str | None, allow_patterns: list[str], **options: Any) -> str:
        asked.append((name, revision))
        snapshot = tmp_path / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        for path in remote.iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copyfile(path, snapshot / path.name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    source = models.find("some/model")
    assert source.record.weights_sha256 == models.find("demo").record.weights_sha256
    assert asked == [("some/model", None), ("some/model", commit)]
    assert [path.name for path in sorted(source.folder.glob("*.safetensors"))] == [
        "model-00001-of-00001.safetensors"
    ]
