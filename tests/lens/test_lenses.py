"""Lenses: what is written is what is read, and damage is named."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import load_lenses, open_cache
from alens.errors import RequestError
from alens.lens.directory import LensDirectory, layer_file

from .. import documents

Copy = Callable[[Path], Path]


def test_tensors_come_back_as_they_were_put(demo_lenses: Path, tmp_path: Path) -> None:
    record, random = load_lenses(demo_lenses).record, torch.Generator().manual_seed(0)
    model = record.model
    tensors = {
        "weight": torch.randn(2, model.d_head, model.d_vocab, generator=random),
        "bias": torch.randn(2, model.d_vocab, generator=random),
        "W_O": torch.randn(2, model.d_head, model.d_model, generator=random),
    }
    directory = LensDirectory(tmp_path)
    files = {layer_file(2): directory.put_layer(2, (1, 4), tensors)}
    directory.put_record(dataclasses.replace(record, layers=(2,), held_out={}, files=files))
    lenses = load_lenses(tmp_path).layer(2)
    for part, name in ((lenses.weight_HEV, "weight"), (lenses.bias_HV, "bias"), (lenses.W_O_HED, "W_O")):
        assert torch.equal(part, tensors[name])


def test_the_mean_of_z_is_kept_beside_the_lenses(demo_lenses: Path, demo_cache: Path) -> None:
    lenses, cache = load_lenses(demo_lenses), open_cache(demo_cache)
    rows = np.arange(6 * 1024)
    rows = rows[cache.read("rows/position", rows) >= 1]
    expected_HE = cache.z(3, rows)[:, [1, 4]].astype(np.float64).mean(0)
    np.testing.assert_allclose(lenses.mean_z(3), expected_HE, rtol=1e-5, atol=1e-6)  # nothing else is read
    assert torch.equal(lenses.mean_z(3), lenses.layer(3).mean_z_HE)
    assert torch.equal(lenses.mean_z(3, (4,)), lenses.mean_z(3)[1:])
    with pytest.raises(RequestError, match="no lens for head 2"):
        lenses.mean_z(3, (2,))


def test_lenses_of_before_it_was_kept_are_read(demo_lenses: Path, copy_of: Copy) -> None:
    root = copy_of(demo_lenses)
    record, directory = load_lenses(root).record, LensDirectory(root)
    tensors = load_lenses(root).layer(3).tensors()
    del tensors["mean_z"]
    files = {**record.files, layer_file(3): directory.put_layer(3, (1, 4), tensors)}
    directory.put_record(dataclasses.replace(record, files=files))
    assert load_lenses(root).mean_z(3) is None and load_lenses(root).layer(3).mean_z_HE is None
    assert load_lenses(root).mean_z(0) is not None


def test_the_record_comes_back_as_it_was_put(demo_lenses: Path, tmp_path: Path) -> None:
    record = load_lenses(demo_lenses).record
    LensDirectory(tmp_path).put_record(record)
    assert load_lenses(tmp_path).record == record


def test_the_record_says_which_lenses_say_nothing(demo_lenses: Path, tmp_path: Path) -> None:
    record = load_lenses(demo_lenses).record
    assert 1.0 < record.mean_output_kl < 4.0 and record.heads == (1, 4)
    marked = copy.deepcopy(record.held_out)
    marked["3"][1]["says_nothing"] = True
    LensDirectory(tmp_path).put_record(dataclasses.replace(record, held_out=marked))
    marked_record = load_lenses(tmp_path).record
    assert not marked_record.says_nothing(3, 1) and marked_record.says_nothing(3, 4)
    with pytest.raises(ValueError):
        marked_record.says_nothing(3, 0)


def test_a_record_of_before_there_were_marks_is_read(demo_lenses: Path, copy_of: Copy) -> None:
    lenses = copy_of(demo_lenses)
    documents.edit(lenses / "lens.json", lambda body: body.pop("mean_output_kl"))
    record = load_lenses(lenses).record
    assert record.mean_output_kl is None and not record.says_nothing(3, 1)


def test_logits_are_z_times_weight_plus_bias_head_by_head(demo_lenses: Path) -> None:
    lenses = load_lenses(demo_lenses).layer(3)
    z_NHE = torch.randn(3, 2, lenses.weight_HEV.shape[1], generator=torch.Generator().manual_seed(0)).half()
    logits = lenses.logits(z_NHE)
    for head in range(2):
        expected = z_NHE[:, head].double() @ lenses.weight_HEV[head].double() + lenses.bias_HV[head].double()
        torch.testing.assert_close(logits[:, head].double(), expected, rtol=1e-4, atol=1e-4)


def test_the_output_matrices_are_those_of_the_heads(demo_lenses: Path, demo_cache: Path) -> None:
    W_O_LHED = torch.from_numpy(open_cache(demo_cache).weights("W_O"))
    assert torch.equal(load_lenses(demo_lenses).layer(3).W_O_HED, W_O_LHED[3, [1, 4]])


def test_there_are_only_json_and_safetensors_files(demo_lenses: Path) -> None:
    names = {path.name for path in demo_lenses.rglob("*")}
    layers = {"layer-00.safetensors", "layer-03.safetensors", "output.safetensors"}
    assert names == {"fit.json", "lens.json", "log.jsonl", *layers}


def test_lens_json_is_written_last(demo_lenses: Path) -> None:
    times = {path.name: path.stat().st_mtime_ns for path in demo_lenses.iterdir()}
    assert max(times, key=lambda name: times[name]) == "lens.json"


def test_lenses_without_lens_json_are_no_lenses(demo_lenses: Path, copy_of: Copy) -> None:
    root = copy_of(demo_lenses)
    (root / "lens.json").unlink()
    with pytest.raises(
        RequestError, match=r"holds no lenses \(their fit is not finished: run `alens fit` again"
    ):
        load_lenses(root)
    (root / "fit.json").unlink()
    with pytest.raises(RequestError, match=r"holds no lenses \(it has no lens.json\)"):
        load_lenses(root)


def test_a_layer_that_was_not_fitted_is_refused_by_name(demo_lenses: Path) -> None:
    with pytest.raises(RequestError, match="no lens for layer 2: it has layers 0, 3"):
        load_lenses(demo_lenses).layer(2)


def test_a_head_that_was_not_fitted_is_refused_by_name(demo_lenses: Path) -> None:
    with pytest.raises(RequestError, match="no lens for head 2: it has heads 1, 4"):
        load_lenses(demo_lenses).place(3, 2)


def test_a_layer_or_head_that_is_named_twice_is_read_once(demo_lenses: Path) -> None:
    """Otherwise a correction for the number of heads would count a head twice."""
    lenses = load_lenses(demo_lenses)
    assert lenses.chosen([3, 0, 3], [4, 4]).pairs == ((3, 4), (0, 4))
    assert lenses.chosen(None, None).pairs == ((0, 1), (0, 4), (3, 1), (3, 4))
    for layers, heads, what in (([], None, "layers"), ([0], [], "heads")):
        with pytest.raises(RequestError, match=f"{what} is empty: name one or more"):
            lenses.chosen(layers, heads)


def test_another_model_is_refused(demo_lenses: Path) -> None:
    with pytest.raises(RequestError, match="holds lenses of demo, and mine has other weights"):
        load_lenses(demo_lenses).check_model(
            dataclasses.replace(load_lenses(demo_lenses).record.model, weights_sha256="0" * 64), "mine"
        )
