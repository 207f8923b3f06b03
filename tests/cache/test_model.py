import contextlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as libraries

from alens import demo
from alens.cache import model
from alens.errors import RequestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model."""
    return Path(shutil.copytree(demo.MODEL, tmp_path / "model"))


def test_the_record_of_the_demo() -> None:
    record = model.find("demo").record
    assert (record.id, record.revision, record.architecture) == ("demo", None, "GPT2LMHeadModel")
    assert (record.n_layers, record.n_heads, record.d_head) == (4, 6, 32)
    assert (record.d_model, record.d_vocab, record.n_ctx) == (192, 4096, 256)
    assert record.weight_processing == "none"


def test_a_copy_is_the_same_model(folder: Path) -> None:
    copied, original = model.find(str(folder)), model.find("demo")
    assert copied.record.weights_sha256 == original.record.weights_sha256
    assert copied.tokenizer_sha256 == original.tokenizer_sha256


def test_the_same_weights_in_two_files_are_the_same_model(folder: Path) -> None:
    before = model.find(str(folder)).record.weights_sha256
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((names[:7], names[7:])):
        save_file(
            {name: tensors[name] for name in part}, folder / f"model-{number}.safetensors", {"format": "pt"}
        )
    assert model.find(str(folder)).record.weights_sha256 == before


def test_one_changed_weight_is_another_model(folder: Path) -> None:
    before = model.find(str(folder)).record.weights_sha256
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.2.attn.c_proj.bias"][5] += 1e-3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert model.find(str(folder)).record.weights_sha256 != before


def test_a_changed_tokenizer_is_another_tokenizer(folder: Path) -> None:
    before = model.find(str(folder)).tokenizer_sha256
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert model.find(str(folder)).tokenizer_sha256 != before


def test_a_loaded_model_is_frozen_and_unprocessed() -> None:
    subject = model.load(model.find("demo"), dtype="float32", device="cpu")
    stored = {name: tensor.float() for name, tensor in load_file(demo.MODEL / "model.safetensors").items()}
    assert not any(weight.requires_grad for weight in subject.bridge.parameters())
    assert not subject.bridge.training
    expected = stored["transformer.h.1.attn.c_proj.weight"].reshape(6, 32, 192)
    torch.testing.assert_close(subject.W_O_LHED[1], expected, rtol=0, atol=0)
    torch.testing.assert_close(subject.W_U_DV, stored["transformer.wte.weight"].T, rtol=0, atol=0)
    assert subject.end_of_text == 0
    assert subject.tokenizer.decode([subject.end_of_text], skip_special_tokens=False) == "<|endoftext|>"


Edit = Callable[[Path], object]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: (m / "config.json").unlink(), "is no model directory: it has no config.json"),
        (lambda m: (m / "config.json").write_text("{"), "config.json is no model configuration"),
        (lambda m: (m / "config.json").write_text("{}"), "config.json is no model configuration"),
        (lambda m: (m / "config.json").write_text('{"model_type": "gpt2"}'), "names no architecture"),
        (lambda m: (m / "model.safetensors").unlink(), "has no .safetensors weights"),
        (lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"), "pickled weights are not loaded"),
        (lambda m: (m / "model.safetensors").write_bytes(b""), "is no readable safetensors file"),
        (lambda m: (m / "model.safetensors").write_bytes(b"\x08" * 99), "is no readable safetensors file"),
        (lambda m: (m / "tokenizer.json").unlink(), "has no tokenizer"),
    ],
)  # fmt: skip
def test_what_is_no_whole_model_directory_is_refused(folder: Path, edit: Edit, says: str) -> None:
    edit(folder)
    with pytest.raises(RequestError, match=says.replace(".", r"\.")):
        model.find(str(folder))


def test_a_garbled_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(RequestError, match="cannot load the tokenizer in"):
        model.load_tokenizer(model.find(str(folder)))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 4096, "content": "<|more|>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(RequestError, match="has 4097 tokens, the model 4096: they do not belong together"):
        model.load_tokenizer(model.find(str(folder)))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/no/such/model", "/no/such/model does not exist"),
        ("no-such-model", "no-such-model is no file or directory here, the hub cache .* has no copy"),
        ("no/such", "no/such is no file or directory here"),
        ("a/b/c", "a/b/c does not exist"),
    ],
)
def test_a_model_that_is_not_there_is_refused(name: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        model.find(name)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(RequestError, match=f"device .*{device}"):
        model.load(model.find("demo"), dtype="float32", device=device)


@pytest.mark.parametrize(("level", "bars"), [(logging.INFO, True), (logging.WARNING, False)])
def test_quiet_libraries_are_afterwards_as_they_were(level: int, bars: bool) -> None:
    deepspeed = logging.getLogger("DeepSpeed")

    def state() -> tuple[int, int, bool]:
        return deepspeed.level, libraries.get_verbosity(), libraries.is_progress_bar_enabled()

    def put(level: int, verbosity: int, bars: bool) -> None:
        deepspeed.setLevel(level)
        libraries.set_verbosity(verbosity)
        (libraries.enable_progress_bar if bars else libraries.disable_progress_bar)()

    before = state()
    try:
        put(level, level, bars)
        with contextlib.suppress(KeyError), model.quiet():
            assert state() == (logging.ERROR, logging.ERROR, False)
            raise KeyError
        assert state() == (level, level, bars)
    finally:
        put(*before)
