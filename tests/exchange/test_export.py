"""An export says the same as the lenses, and can be used without alens."""

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from alens import ExportRequest, load_lenses, open_cache
from alens.errors import RequestError, RunError, StoppedError
from alens.exchange import export, folder
from alens.store.paths import LENS_JSON

from .. import documents

Copy = Callable[[Path], Path]


@pytest.fixture(scope="module")
def exported(demo_lenses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "paper"
    export.write(export.plan(load_lenses(demo_lenses)), out)
    return out


def test_on_head_outputs_the_paper_form_says_what_the_lens_says_on_z(
    exported: Path, demo_lenses: Path, demo_cache: Path
) -> None:
    z_NHE = torch.from_numpy(open_cache(demo_cache).z(3, slice(0, 64))).float()
    fitted = load_lenses(demo_lenses).layer(3)
    tensors = load_file(exported / "layer-03.safetensors")
    for index, head in enumerate((1, 4)):
        a_ND = z_NHE[:, head] @ fitted.W_O_HED[index]
        found_NV = a_ND @ tensors[f"head.{head}.weight"] + tensors[f"head.{head}.bias"]
        assert found_NV.shape == (64, 4096)
        torch.testing.assert_close(found_NV, fitted.maps.logits(index, z_NHE[:, head]), rtol=1e-4, atol=1e-4)


def test_what_is_orthogonal_to_head_outputs_is_read_as_nothing(exported: Path, demo_lenses: Path) -> None:
    W_O_ED = load_lenses(demo_lenses).layer(3).W_O_HED[0]
    outside_D = torch.linalg.svd(W_O_ED, full_matrices=True).Vh[-1]
    weight_DV = load_file(exported / "layer-03.safetensors")["head.1.weight"]
    assert float((outside_D @ weight_DV).abs().max()) < 1e-4 * float(weight_DV.abs().max())


def test_no_place_of_this_machine_is_written(demo_lenses: Path, tmp_path: Path) -> None:
    lenses = load_lenses(demo_lenses)
    lenses.record = dataclasses.replace(
        lenses.record,
        model=dataclasses.replace(lenses.record.model, id="/scratch/me/model"),
        cache={
            **lenses.record.cache,
            "corpus": {"id": "/scratch/me/books", "revision": None, "split": "train"},
        },
        fit={**lenses.record.fit, "lens": "/scratch/me/design.py:Mine"},
    )
    export.write(export.plan(lenses, ExportRequest(form="z", layers=(0,))), tmp_path / "out")
    for name in (export.CARD, export.CONFIG):
        text = (tmp_path / "out" / name).read_text()
        assert "scratch" not in text and "books" in text


def test_form_z_is_the_lens_as_it_was_fitted(demo_lenses: Path, tmp_path: Path) -> None:
    export.write(
        export.plan(load_lenses(demo_lenses), ExportRequest(form="z", layers=(3,))), tmp_path / "out"
    )
    tensors, fitted = load_file(tmp_path / "out" / "layer-03.safetensors"), load_lenses(demo_lenses).layer(3)
    assert torch.equal(tensors["head.4.weight"], fitted.weight_HEV[1])
    assert torch.equal(tensors["head.4.bias"], fitted.bias_HV[1])
    assert not (tmp_path / "out" / "layer-00.safetensors").exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_smaller_dtypes_are_written(demo_lenses: Path, tmp_path: Path, dtype: str) -> None:
    lenses = load_lenses(demo_lenses)
    plan = export.plan(lenses, ExportRequest(form="z", layers=(0,), dtype=dtype))
    export.write(plan, tmp_path / "out")
    file = tmp_path / "out" / "layer-00.safetensors"
    weight = load_file(file)["head.1.weight"]
    assert weight.dtype == getattr(torch, dtype)
    assert torch.equal(weight, lenses.layer(0).weight_HEV[0].to(weight.dtype))
    assert file.stat().st_size == plan.bytes


def test_the_config_says_where_the_lenses_come_from(exported: Path, demo_lenses: Path) -> None:
    body, record = json.loads((exported / "config.json").read_text()), load_lenses(demo_lenses).record
    assert body["model"]["weights_sha256"] == record.model.weights_sha256
    assert body["cache"]["plan"] == record.cache["plan"]
    assert body["cache"]["corpus"]["id"] == "demo"
    assert body["tensors"]["head.1.weight"] == [192, 4096]
    layers = {"layer-00.safetensors", "layer-03.safetensors"}
    assert set(body["files"]) == {*layers, "mean-z.safetensors", "output.safetensors"}
    assert "host" not in body["software"]


def test_the_card_has_every_head_and_its_example_runs(exported: Path, demo_lenses: Path) -> None:
    card, record = (exported / "README.md").read_text(), load_lenses(demo_lenses).record
    assert card.startswith("---\nlibrary_name: alens\n")
    assert "\nbase_model:" not in card  # the demo is not on the hub
    for layer in record.layers:
        for head, figures in zip(record.heads, record.held_out[str(layer)], strict=True):
            assert f"| {layer}.{head} | {figures['kl']:.4f} |" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, object] = {"a": torch.zeros(2, 192)}
    exec(code.replace('"layer', f'"{exported}/layer'), names)
    assert names["logits"].shape == (2, 4096)


def test_a_model_of_the_hub_is_the_cards_base_model(demo_lenses: Path, copy_of: Copy, tmp_path: Path) -> None:
    root = copy_of(demo_lenses)
    hub = {"id": "openai-community/gpt2", "revision": "abc"}
    documents.edit(root / LENS_JSON, lambda body: body["model"].update(hub))
    export.write(export.plan(load_lenses(root), ExportRequest(form="z", layers=(0,))), tmp_path / "out")
    assert '\nbase_model: "openai-community/gpt2"\n' in (tmp_path / "out" / "README.md").read_text()


def test_a_directory_of_ones_own_is_not_published(demo_lenses: Path, copy_of: Copy, tmp_path: Path) -> None:
    root = copy_of(demo_lenses)
    private = "/home/someone/secret/my-model"
    documents.edit(root / LENS_JSON, lambda body: body["model"].update(id=private))
    export.write(export.plan(load_lenses(root), ExportRequest(form="z", layers=(0,))), tmp_path / "out")
    for name in ("README.md", "config.json"):
        assert "someone" not in (tmp_path / "out" / name).read_text()


def test_the_same_export_again_writes_nothing(exported: Path, demo_lenses: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    export.write(export.plan(load_lenses(demo_lenses)), exported)
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before


def test_another_export_does_not_overwrite_it(exported: Path, demo_lenses: Path) -> None:
    with pytest.raises(RequestError, match="is not empty: give a directory"):
        export.write(export.plan(load_lenses(demo_lenses), ExportRequest(form="z")), exported)


def test_a_directory_with_anything_in_it_is_left_alone(demo_lenses: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="is not empty"):
        export.write(export.plan(load_lenses(demo_lenses)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_directory_is_filled(demo_lenses: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export.write(export.plan(load_lenses(demo_lenses), ExportRequest(form="z")), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": (1,)}, "has no lens for layer 1: it has layers 0, 3"),
        ({"layers": ()}, "layers is empty: name one or more"),
        ({"heads": "3.2"}, "has no lens for head 2: it has heads 1, 4"),
        ({"form": "other"}, "form is 'other': it must be one of paper, z"),
        ({"dtype": "int8"}, "dtype is 'int8': it must be one of float32, float16, bfloat16"),
    ],
)
def test_a_wrong_request_is_refused(demo_lenses: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        export.plan(load_lenses(demo_lenses), ExportRequest(**given))


def with_record(root: Path, **changes: object) -> Path:
    documents.edit(root / LENS_JSON, lambda body: body.update(changes))
    return root


def test_lenses_that_are_not_affine_are_refused(demo_lenses: Path, copy_of: Copy) -> None:
    with pytest.raises(RequestError, match="only affine lenses have a weight and a bias"):
        export.plan(load_lenses(with_record(copy_of(demo_lenses), form="translated")))


def test_lenses_of_the_residual_stream_have_no_paper_form(demo_lenses: Path, copy_of: Copy) -> None:
    lenses = load_lenses(with_record(copy_of(demo_lenses), site="resid_post", heads=[0], held_out={}))
    with pytest.raises(RequestError, match="has no heads: take --form z"):
        export.plan(lenses)
    assert export.plan(lenses, ExportRequest(form="z")).width == 192


def test_a_head_whose_outputs_say_less_than_z_is_refused() -> None:
    W_O_ED = torch.randn(4, 8)
    W_O_ED[3] = W_O_ED[2]
    with pytest.raises(RequestError, match=r"head 1\.2 does not have full rank.*--form z"):
        export._inverse(W_O_ED, "1.2")


def test_a_disk_without_room_is_seen_before_anything_is_written(
    demo_lenses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: folder.shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(
        RunError,
        match=r"has 0 bytes free, and .*out will take 12,649,168 beside 16,777,216 that are kept free: make room",
    ):
        export.write(export.plan(load_lenses(demo_lenses)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing(
    demo_lenses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*out: No space left on device"):
        export.write(export.plan(load_lenses(demo_lenses)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_stopped_export_leaves_nothing(demo_lenses: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(StoppedError, match="nothing was written: run the same command again"):
        export.write(export.plan(load_lenses(demo_lenses)), tmp_path / "out", should_stop=stop)
    assert not list(tmp_path.iterdir())


def test_a_layer_is_read_only_when_it_is_written(demo_lenses: Path, tmp_path: Path) -> None:
    lenses = load_lenses(demo_lenses)
    export.write(export.plan(lenses), tmp_path / "out")
    assert lenses._layers == {}


def test_a_tensor_can_be_read_alone(exported: Path) -> None:
    with safe_open(exported / "layer-00.safetensors", framework="pt") as file:
        assert set(file.keys()) == {f"head.{h}.{part}" for h in (1, 4) for part in ("weight", "bias")}
        assert file.get_slice("head.1.weight")[:2].shape == (2, 4096)
