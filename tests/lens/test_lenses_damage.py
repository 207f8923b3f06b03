"""Damaged or contradictory lenses are named and never read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alens import load_lenses, open_cache
from alens.errors import DamageError, RequestError, RunError
from alens.lens.directory import LensDirectory, layer_file
from alens.store import durable

from .. import documents
from ..damage import cut, flip

Copy = Callable[[Path], Path]


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", ["layer-03.safetensors", "output.safetensors"])
def test_a_damaged_tensor_file_is_named(
    demo_lenses: Path, copy_of: Copy, name: str, harm: Callable[[Path], None]
) -> None:
    root = copy_of(demo_lenses)
    harm(root / name)
    lenses = load_lenses(root)
    with pytest.raises(DamageError, match=name):
        lenses.layer(3) if name.startswith("layer") else lenses.log_mean_output()


def test_an_undamaged_layer_can_be_read_beside_a_damaged_one(demo_lenses: Path, copy_of: Copy) -> None:
    root = copy_of(demo_lenses)
    flip(root / "layer-03.safetensors")
    assert load_lenses(root).layer(0).weight_HEV.isfinite().all()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"format": 2}', "\x00"],
    ids=["empty", "cut", "list", "number", "no fields", "zeros"],
)
def test_a_damaged_lens_json_is_named(demo_lenses: Path, copy_of: Copy, text: str) -> None:
    root = copy_of(demo_lenses)
    (root / "lens.json").write_text(text)
    with pytest.raises(DamageError, match=r"lens.json is not whole"):
        load_lenses(root)


def test_a_file_record_without_its_hash_is_damage(demo_lenses: Path, copy_of: Copy) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", lambda body: body["files"]["layer-03.safetensors"].clear())
    with pytest.raises(DamageError, match=r"lens.json|layer-03"):
        load_lenses(root).layer(3)


@pytest.mark.parametrize(("version", "shown"), [(1, "1"), ("2", "'2'")])
def test_another_format_is_refused(demo_lenses: Path, copy_of: Copy, version: object, shown: str) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", lambda body: body.update(format=version))
    with pytest.raises(RequestError, match=f"has format {shown}; this alens reads format 2 and 3"):
        load_lenses(root)


@pytest.mark.parametrize(
    "changed",
    [
        {"layers": []},
        {"heads": [1, 1]},
        {"heads": [0, 1, 4]},
        {"site": "resid_post"},
        {"held_out": {"0": [0.5, 0.5], "3": [0.5, 0.5]}},
        {"held_out": {"0": []}},
        {"files": {"layer-00.safetensors": None}},
        {"files": {"layer-00.safetensors": {"bytes": "12"}}},
        {"held_out": {"0": [{"kl": 0.5, "cross_entropy": 0.5, "top1_agreement": None}] * 2}},
        {"held_out": {"0": [{"kl": 0.5, "top1_agreement": 0.5}] * 2}},
        {"held_out": {"0": [{"cross_entropy": 0.5, "top1_agreement": 0.5}] * 2}},
    ],
)
def test_a_record_that_contradicts_itself_is_damage(
    demo_lenses: Path, copy_of: Copy, changed: dict[str, Any]
) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", lambda body: body.update(changed))
    with pytest.raises(DamageError, match=r"lens.json is not whole"):
        load_lenses(root)


def test_other_shapes_than_lens_json_says_are_damage(demo_lenses: Path, copy_of: Copy) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", lambda body: body["model"].update(d_head=31))
    with pytest.raises(DamageError, match=r"layer-03.safetensors has \(2, 32, 4096\) for weight"):
        load_lenses(root).layer(3)


def rewrite(root: Path, layer: int, tensors: dict[str, torch.Tensor], told: dict[str, str] | None) -> None:
    """Write other contents into the file of a layer, and the new hash into `lens.json`."""
    name = layer_file(layer)
    save_file(tensors, root / name, told)
    written = {"bytes": (root / name).stat().st_size, "sha256": durable.sha256_of(root / name)}
    documents.edit(root / "lens.json", lambda body: body["files"].update({name: written}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"heads": [2, 4]},
            r"layer-03.safetensors holds lenses of layer 3, heads 1,4, lens.json says layer 3, heads 2,4",
        ),
        (
            {"heads": [4, 1]},
            r"layer-03.safetensors holds lenses of layer 3, heads 1,4, lens.json says layer 3, heads 4,1",
        ),
    ],
)
def test_weights_say_whose_lenses_they_are(
    demo_lenses: Path, copy_of: Copy, changed: dict[str, Any], message: str
) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", lambda body: body.update(changed))
    with pytest.raises(DamageError, match=message):
        load_lenses(root).layer(3)


def test_files_of_two_layers_cannot_be_exchanged(demo_lenses: Path, copy_of: Copy) -> None:
    """Not even where their hashes are swapped with them."""
    root = copy_of(demo_lenses)
    rewrite(root, 3, load_file(root / "layer-00.safetensors"), {"lenses": "layer 0, heads 1,4"})
    with pytest.raises(
        DamageError, match=r"layer-03.safetensors holds lenses of layer 0, heads 1,4, lens.json says layer 3"
    ):
        load_lenses(root).layer(3)


@pytest.mark.parametrize("before", [False, True], ids=["tied first", "read first"])
def test_weights_under_another_heads_number_are_noticed(
    demo_lenses: Path, demo_cache: Path, copy_of: Copy, before: bool
) -> None:
    """Files from before they named their heads hold W_O too."""
    root, W_O_LHED = copy_of(demo_lenses), torch.from_numpy(open_cache(demo_cache).weights("W_O"))
    rewrite(root, 3, load_file(root / "layer-03.safetensors"), None)
    documents.edit(root / "lens.json", lambda body: body.update(heads=[1, 5]))
    lenses = load_lenses(root)
    if before:
        lenses.layer(3)
    with pytest.raises(
        DamageError, match=r"W_O that is not that of head 3\.5, whose lens it is by lens.json"
    ):
        lenses.tie(W_O_LHED)
        lenses.layer(3)


def test_a_cache_in_bfloat16_is_the_same_model(demo_lenses: Path, demo_cache: Path) -> None:
    lenses = load_lenses(demo_lenses)
    lenses.tie(torch.from_numpy(open_cache(demo_cache).weights("W_O")).bfloat16())
    assert lenses.chosen(None, None).layers == (0, 3)


def one_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[5] = float("nan")
    return tensor


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("weight", torch.Tensor.half, "has weight as float16, and lenses are float32"),
        ("weight", torch.Tensor.long, "has weight as int64, and lenses are float32"),
        ("bias", torch.Tensor.bool, "has bias as bool, and lenses are float32"),
        ("weight", one_nan, "has numbers in weight that are not finite"),
        ("W_O", lambda tensor: tensor / 0, "has numbers in W_O that are not finite"),
        ("bias", lambda tensor: tensor[:, :-1].contiguous(), r"has \(2, 4095\) for bias, lens.json says \(2, 4096\)"),
    ],
    ids=["float16", "int64", "bool", "nan", "inf", "shape"],
)  # fmt: skip
def test_numbers_that_no_fit_writes_are_refused_by_name(
    demo_lenses: Path, copy_of: Copy, key: str, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    root = copy_of(demo_lenses)
    tensors = load_file(root / "layer-03.safetensors")
    rewrite(root, 3, {**tensors, key: change(tensors[key])}, None)
    with pytest.raises(DamageError, match=f"layer-03.safetensors {message}"):
        load_lenses(root).layer(3)


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"weight for .*layer-02.safetensors has numbers that are not finite"):
        LensDirectory(tmp_path).put_layer(2, (1,), {"weight": one_nan(torch.ones(10))})
    assert list(tmp_path.iterdir()) == []


def test_a_mean_output_that_is_no_distribution_is_refused(demo_lenses: Path, copy_of: Copy) -> None:
    root, name = copy_of(demo_lenses), "output.safetensors"
    log_mean_V = load_file(root / name)["log_mean_output"]
    save_file({"log_mean_output": log_mean_V + 0.1}, root / name)
    written = {"bytes": (root / name).stat().st_size, "sha256": durable.sha256_of(root / name)}
    documents.edit(root / "lens.json", lambda body: body["files"].update({name: written}))
    with pytest.raises(DamageError, match=r"output.safetensors has a mean output that sums to 1\.105, not 1"):
        load_lenses(root).log_mean_output()


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("fit", "min_position", -5, r"fit.min_position is \[-5\]: it must be whole numbers, 0 or more"),
        ("fit", "steps", 2.5, r"fit.steps is \[2.5\]: it must be whole numbers, 0 or more"),
        (
            "cache",
            "held_out_shards",
            [1, "2"],
            r"cache.held_out_shards is \[1, '2'\]: it must be whole numbers",
        ),
        ("cache", "train_shards", "all", "cache.train_shards is 'all': it must be whole numbers"),
        ("model", "d_vocab", 0, "model.d_vocab is 0: input should be greater than or equal to 1"),
        ("model", "revision", 5, "model.revision is 5: input should be a valid string"),
    ],
)
def test_a_record_that_cannot_be_names_the_field(
    demo_lenses: Path, copy_of: Copy, part: str, field: str, value: Any, message: str
) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", lambda body: body[part].update({field: value}))
    with pytest.raises(DamageError, match=rf"lens.json is not whole \({message}"):
        load_lenses(root)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, "2.1"])
def test_figures_that_are_no_numbers_are_refused(demo_lenses: Path, copy_of: Copy, value: Any) -> None:
    root = copy_of(demo_lenses)
    documents.edit(root / "lens.json", lambda body: body["held_out"]["3"][0].update(kl=value))
    with pytest.raises(DamageError, match=r"held_out has no figures of each head"):
        load_lenses(root)


def test_the_same_lenses_are_the_same_bytes(tmp_path: Path) -> None:
    """In every process, at every time."""
    tensors = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    written = [LensDirectory(tmp_path).put_layer(3, (1, 4), tensors)["sha256"] for _ in range(20)]
    assert len(set(written)) == 1
