import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import evaluate, load_lenses
from alens.errors import DamageError
from alens.fit.settings import FitSettings
from alens.store import document
from alens.store.cache_reader import open_cache
from alens.sweep import result as results

from .. import documents
from ..damage import cut, flip


@pytest.fixture
def result(demo_cache: Path, demo_lenses: Path) -> results.VariantResult:
    return results.judge_variant(
        load_lenses(demo_lenses),
        open_cache(demo_cache),
        FitSettings(eval_rows=1024),
        (5,),
        torch.device("cpu"),
    )


def test_sums_by_sequence_give_the_figures_of_eval(
    result: results.VariantResult, demo_cache: Path, demo_lenses: Path
) -> None:
    evaluation = evaluate(load_lenses(demo_lenses), open_cache(demo_cache))
    assert result.heads == ((0, 1), (0, 4), (3, 1), (3, 4))
    heads = [head for layer in evaluation.lens.values() for head in layer]
    assert result.kl_H == pytest.approx([head.kl for head in heads], rel=1e-6)
    assert result.cross_entropy == pytest.approx([head.cross_entropy for head in heads])
    assert result.rows_G.tolist() == [63.0] * 16
    assert result.mean_output_kl == pytest.approx(evaluation.mean_output.kl, rel=1e-6)


def test_a_result_comes_back_as_it_was_put(result: results.VariantResult, tmp_path: Path) -> None:
    assert results.read_result(tmp_path) is None
    results.put_result(tmp_path, result)
    back = results.read_result(tmp_path)
    assert back is not None
    assert np.array_equal(back.kl_GH, result.kl_GH) and np.array_equal(back.rows_G, result.rows_G)
    plain = [name for name in result.__dataclass_fields__ if name not in ("kl_GH", "rows_G")]
    assert [list(v) if isinstance(v := getattr(back, n), (list, tuple)) else v for n in plain] == [
        list(v) if isinstance(v := getattr(result, n), tuple) else v for n in plain
    ]


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("result.json", flip),
        ("result.json", cut),
        ("held-out.safetensors", flip),
        ("held-out.safetensors", cut),
        ("held-out.safetensors", Path.unlink),
    ],
)
def test_a_damaged_result_is_never_read(
    result: results.VariantResult, tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    results.put_result(tmp_path, result)
    harm(tmp_path / name)
    with pytest.raises(DamageError, match=r"delete .*result.json and sweep again"):
        results.read_result(tmp_path)


def test_a_result_of_an_earlier_alens_has_no_mean_output(
    result: results.VariantResult, tmp_path: Path
) -> None:
    results.put_result(tmp_path, result)
    body = document.decode((tmp_path / "result.json").read_bytes(), "")
    del body["mean_output_kl"]
    (tmp_path / "result.json").write_bytes(document.encode(body))
    back = results.read_result(tmp_path)
    assert back is not None and back.mean_output_kl is None and back.heads == result.heads


def test_what_failed_has_no_figures(tmp_path: Path) -> None:
    results.put_result(tmp_path, results.VariantResult(failed="the loss is not finite", seconds=2.5))
    failed: Any = results.read_result(tmp_path)
    assert (failed.failed, failed.seconds, failed.kl_GH.size) == ("the loss is not finite", 2.5, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "5"}, r'steps is "5": input should be a valid integer'),
        ({"heads": [[3]]}, r"heads\.0\.1"),
        ({"heads": []}, "have different lengths"),
        ({"top1_agreement": []}, "have different lengths"),
        ({"seconds": float("inf")}, "seconds is Infinity"),
        ({"surprise": 1}, "unknown field surprise"),
    ],
)
def test_a_result_that_cannot_be_names_the_field(
    result: results.VariantResult, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    results.put_result(tmp_path, result)
    documents.edit(tmp_path / "result.json", lambda body: body.update(changes))
    with pytest.raises(
        DamageError, match=rf"result\.json is not whole \(.*{message}.*delete .*result\.json and sweep again"
    ):
        results.read_result(tmp_path)


def test_sums_that_cannot_be_are_named(result: results.VariantResult, tmp_path: Path) -> None:
    results.put_result(tmp_path, dataclasses.replace(result, kl_GH=result.kl_GH[:, :1]))
    with pytest.raises(DamageError, match=r"held-out\.safetensors is not whole \(kl is"):
        results.read_result(tmp_path)
