"""A GGUF file as MODEL, through the whole path, against the same weights as safetensors; what is refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens import open_cache
from alens.errors import RequestError
from alens.model import gguf_file, models

from ..outcomes import refusal
from .gguf_models import write

CACHE = ("--seq-len", 16, "--rows-per-shard", 64, "--max-rows", 256, "--batch-size", 2, "--top-k", 8)
FIT = ("--steps", 2, "--batch-rows", 32, "--eval-rows", 31)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GGUF file, and the directory with the same weights."""
    folder = tmp_path_factory.mktemp("gguf")
    return write(folder / "tiny.gguf", folder / "plain"), folder / "plain"


@pytest.fixture(scope="module")
def file(both: tuple[Path, Path]) -> Path:
    return both[0]


def test_a_gguf_file_goes_through_the_whole_path(
    both: tuple[Path, Path], run_alens: Any, tmp_path: Path
) -> None:
    file, plain = both
    cached, lenses = tmp_path / "store", tmp_path / "lenses"
    outcome = run_alens("cache", file, "demo", cached, "--tail-samples", 4, *CACHE)
    assert outcome.code == 0 and "Converting" not in outcome.stderr, outcome  # transformers' bar
    record = open_cache(cached).plan.model
    assert (record.id, record.name, record.architecture) == (str(file), "tiny.gguf", "LlamaForCausalLM")
    assert record.config is not None and record.config["rms_norm_eps"] == 1e-5
    assert run_alens("cache", plain, "demo", tmp_path / "same", "--tail-samples", 4, *CACHE).code == 0
    ours, same = open_cache(cached), open_cache(tmp_path / "same")
    np.testing.assert_array_equal(ours.tokens, same.tokens)
    for layer in (0, 1):
        np.testing.assert_array_equal(ours.z(layer, slice(None)), same.z(layer, slice(None)))
    for name in ("W_O", "W_U", "norm_gain"):
        np.testing.assert_array_equal(ours.weights(name), same.weights(name))
    assert (
        record.config == same.plan.model.config
    )  # as GGUF has no name for the head's size, it is the default
    assert run_alens("fit", cached, lenses, *FIT).code == 0
    assert run_alens("eval", lenses, cached, "--rows", 31).code == 0
    assert run_alens("read", lenses, "The king said", "--details").code == 0
    assert (
        run_alens(
            "inject", lenses, "The king said", "--tokens", "the", "--head", "1.0", "--by", "unembedding"
        ).code
        == 0
    )
    assert run_alens("verify", cached, "--deep", 8).code == 0
    moved = Path(shutil.copy(file, tmp_path / "moved.gguf"))
    assert run_alens("read", lenses, "The king", "--model", moved).code == 0
    content = bytearray(moved.read_bytes())
    content[-200] ^= 1  # the tensors come last
    moved.write_bytes(content)
    line = refusal(run_alens("read", lenses, "The king", "--model", moved))
    assert line.startswith(f"{moved} has other weights than the model of {lenses} ({file})")


@pytest.mark.slow
def test_the_hash_is_that_of_the_tensors(file: Path, tmp_path: Path) -> None:
    """Not of the whole file: a new name changes nothing, a new weight does."""
    before = models.find(str(file)).record
    named = write(tmp_path / "named.gguf", tmp_path / "plain", general__name="Other")
    assert models.find(str(named)).record.weights_sha256 == before.weights_sha256
    content = bytearray(named.read_bytes())
    content[-200] ^= 1  # the tensors come last
    named.write_bytes(content)
    assert models.find(str(named)).record.weights_sha256 != before.weights_sha256
    assert models.find(str(file), hash_weights=False).record.weights_sha256 == models.NOT_HASHED


@pytest.mark.slow
def test_a_directory_with_one_file_is_that_file_and_nothing_beside_it_counts(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    file, plain = both
    (tmp_path / "dir").mkdir()
    shutil.copy(file, tmp_path / "dir")
    (tmp_path / "dir/tokenizer.json").write_text("{}")
    (tmp_path / "dir/adapter_config.json").write_text("{}")
    source = models.find(str(tmp_path / "dir"))
    assert source.record.id == str(tmp_path / "dir/tiny.gguf")
    tokenizer, end = models.load_tokenizer(source)
    text = "The king's men, 12 of them."
    assert tokenizer.encode(text).ids == models.load_tokenizer(models.find(str(plain)))[0].encode(text).ids
    assert end == 0


# Refusals


def test_of_a_repository_of_gguf_files_one_is_to_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tmp_path))
    says = r"^me/tiny-GGUF has no config.json: .* \(`hf download me/tiny-GGUF FILE.gguf --local-dir DIR`\)"
    with pytest.raises(RequestError, match=says):
        models.find("me/tiny-GGUF")


def test_two_files_in_a_directory_are_two_models(file: Path, run_alens: Any, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / name)
    line = refusal(run_alens("plan", tmp_path, "demo"))
    assert line == (
        f"{tmp_path} holds 2 GGUF files, each a model of its own: give one of them, such as {tmp_path / 'a.gguf'}"
    )


def test_without_the_package_it_is_named(file: Path, run_alens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "PACKAGE", "gguf_of_another_machine")
    line = refusal(run_alens("plan", file, "demo"))
    assert line == f"{file} needs the Python package gguf: pip install gguf"


def test_a_part_of_a_model_is_not_a_model(file: Path, run_alens: Any, tmp_path: Path) -> None:
    part = Path(shutil.copy(file, tmp_path / "big-00001-of-00003.gguf"))
    line = refusal(run_alens("plan", part, "demo"))
    assert line == (
        f"{part} is one of 3 files of a model: join them with `llama-gguf-split --merge`, and give the whole"
    )


@pytest.mark.slow
def test_scaled_positions_are_refused_because_transformers_leaves_them_out(
    run_alens: Any, tmp_path: Path
) -> None:
    scaled = write(tmp_path / "scaled.gguf", tmp_path / "plain", llama__rope__scaling__type="yarn")
    line = refusal(run_alens("plan", scaled, "demo"))
    assert line == (
        f"{scaled} scales its positions (llama.rope.scaling.type), and transformers leaves that out: give the model as a "
        "directory of safetensors"
    )


@pytest.mark.parametrize("keep", [0, 5000, -1000])
def test_a_damaged_file_is_refused_in_one_line(file: Path, run_alens: Any, tmp_path: Path, keep: int) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(file.read_bytes()[:keep])
    assert refusal(run_alens("plan", damaged, "demo")).startswith(f"{damaged} is not a readable GGUF file: ")


def test_a_file_without_a_tensor_is_not_whole(file: Path, run_alens: Any, tmp_path: Path) -> None:
    content = file.read_bytes().replace(b"blk.1.attn_v.weight", b"blk.9.attn_v.weight")
    (tmp_path / "lacking.gguf").write_bytes(content)
    line = refusal(run_alens("cache", tmp_path / "lacking.gguf", "demo", tmp_path / "store", *CACHE))
    assert line == (
        f"{tmp_path / 'lacking.gguf'} is not a whole LlamaForCausalLM: it lacks 1 of its 21 tensors "
        "(model.layers.1.self_attn.v_proj.weight); give another file, or the model as a directory of safetensors"
    )
