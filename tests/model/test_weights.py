import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import demo
from alens.errors import RequestError
from alens.model import configuration, pretrained, weights
from alens.model.libraries import quiet

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Edit = Callable[[Path], object]


def names(folder: Path) -> list[str]:
    return [path.name for path in weights.files(folder, configuration.read(folder))]


def sha256(folder: Path) -> str:
    return weights.sha256(weights.files(folder, configuration.read(folder)))


def changed(folder: Path, file: str, name: str = "transformer.ln_f.bias") -> None:
    """Writes the demo's weights to `file`, with one tensor changed."""
    tensors = load_file(demo.MODEL / WHOLE)
    save_file({**tensors, name: tensors[name] + 1}, folder / file, {"format": "pt"})


def split(folder: Path) -> None:
    """The weights in two files, and their index."""
    tensors = load_file(folder / WHOLE)
    (folder / WHOLE).unlink()
    place = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(place.values()):
        part = {name: tensors[name] for name in tensors if place[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": place}))


def configured(folder: Path, **settings: Any) -> None:
    body = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(body | settings))


def whole_and_index(folder: Path) -> None:
    split(folder)
    changed(folder, WHOLE)


def elsewhere(folder: Path) -> None:
    changed(folder, "best.safetensors")
    configured(folder, transformers_weights="best.safetensors")


def elsewhere_in_parts(folder: Path) -> None:
    split(folder)
    (folder / INDEX).rename(folder / "best.safetensors.index.json")
    shutil.copyfile(demo.MODEL / WHOLE, folder / WHOLE)
    configured(folder, transformers_weights="best.safetensors.index.json")


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda m: None, [WHOLE]),
        (lambda m: changed(m, "z.safetensors"), [WHOLE]),
        (lambda m: changed(m, "consolidated.safetensors"), [WHOLE]),
        (split, ["model-0.safetensors", "model-1.safetensors"]),
        (whole_and_index, [WHOLE]),
        (elsewhere, ["best.safetensors"]),
        (elsewhere_in_parts, ["model-0.safetensors", "model-1.safetensors"]),
    ],
)
def test_the_files_are_those_that_transformers_loads(
    folder: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, expected: list[str]
) -> None:
    from transformers import modeling_utils

    edit(folder)
    plainly, loaded = modeling_utils._get_resolved_checkpoint_files, []

    def watched(*arguments: Any, **options: Any) -> Any:
        result = plainly(*arguments, **options)
        loaded.extend(result[0])
        return result

    monkeypatch.setattr(modeling_utils, "_get_resolved_checkpoint_files", watched)
    with quiet():
        pretrained.load(folder, torch.float32)
    assert names(folder) == [Path(path).name for path in loaded] == expected


def test_other_weights_behind_the_original_under_another_name_are_another_model(folder: Path) -> None:
    """Once the last file of the directory counted, so that a changed `model.safetensors` passed."""
    shutil.copyfile(folder / WHOLE, folder / "z.safetensors")
    assert sha256(folder) == sha256(demo.MODEL)
    changed(folder, WHOLE)
    assert sha256(folder) != sha256(demo.MODEL)


@pytest.mark.parametrize("name", ["consolidated.safetensors", "adapter_model.safetensors"])
def test_a_file_that_is_not_loaded_leaves_the_model_the_same(folder: Path, name: str) -> None:
    save_file({"lora_A.weight": torch.ones(2, 2)}, folder / name)
    assert sha256(folder) == sha256(demo.MODEL)


def test_the_same_weights_in_parts_are_the_same_model(folder: Path) -> None:
    split(folder)
    assert sha256(folder) == sha256(demo.MODEL)


def test_the_old_hash_is_over_all_files(folder: Path) -> None:
    loaded = [folder / WHOLE]
    assert weights.old_sha256(folder, loaded) == sha256(demo.MODEL)
    save_file({"another": torch.ones(2)}, folder / "z.safetensors")
    assert weights.old_sha256(folder, loaded) == weights.sha256([folder / WHOLE, folder / "z.safetensors"])


def test_the_old_hash_counts_only_where_it_covers_what_is_loaded(folder: Path) -> None:
    shutil.copyfile(folder / WHOLE, folder / "z.safetensors")
    changed(folder, WHOLE)
    assert weights.old_sha256(folder, [folder / WHOLE]) is None


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: (m / WHOLE).unlink(), "has no model.safetensors and no model.safetensors.index.json"),
        (lambda m: (m / WHOLE).rename(m / "weights.safetensors"), "has no model.safetensors"),
        (lambda m: changed(m, "shard-00000-model-00001-of-00001.safetensors"), "holds a distributed checkpoint"),
        (lambda m: (split(m), (m / INDEX).write_text("{")), "index.json is not an index of safetensors files"),
        (lambda m: (split(m), (m / INDEX).write_text("[]")), "index.json is not an index of safetensors files"),
        (lambda m: (split(m), (m / "model-1.safetensors").unlink()), "model-1.safetensors is not a readable safetensors file"),
        (lambda m: configured(m, transformers_weights="best.safetensors"), "best.safetensors is not a readable safetensors file"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_had_are_refused(folder: Path, edit: Edit, says: str) -> None:
    edit(folder)
    with pytest.raises(RequestError, match=says.replace(".", r"\.")):
        sha256(folder)


def test_an_adapter_is_refused_only_where_peft_would_add_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert sha256(folder) == sha256(demo.MODEL)
    monkeypatch.setattr("transformers.utils.import_utils.is_peft_available", lambda: True)
    with pytest.raises(RequestError, match="which the installed peft would add to the weights"):
        sha256(folder)
