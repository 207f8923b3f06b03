"""What judging takes from the model, and what it says where the model is missing."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import demo, open_cache
from alens.errors import RequestError
from alens.reading.model_parts import find_model_parts
from alens.store.schema import Plan

CPU = torch.device("cpu")


@pytest.fixture
def plan(demo_cache: Path) -> Plan:
    return open_cache(demo_cache).plan


def changed(plan: Plan, part: str, **fields: Any) -> Plan:
    return dataclasses.replace(plan, **{part: dataclasses.replace(getattr(plan, part), **fields)})


def test_the_demo_is_at_hand(plan: Plan) -> None:
    parts = find_model_parts(plan, model=None, device=CPU, with_norm=False)
    assert parts.token_bytes_V is not None and len(parts.token_bytes_V) == 4096
    assert parts.final_norm is None and parts.lacking is None


def test_the_last_norm_makes_the_final_residual_of_the_last_layer(residual_cache: Path) -> None:
    plan = open_cache(residual_cache).plan
    parts = find_model_parts(plan, model="demo", device=CPU, with_norm=True)
    assert parts.final_norm is not None
    values_BD = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    from safetensors.torch import load_file

    weights = load_file(next(demo.MODEL.glob("*.safetensors")))
    gain, offset = (
        next(v for k, v in weights.items() if k.endswith(f"ln_f.{n}")).float() for n in ("weight", "bias")
    )
    expected = torch.nn.functional.layer_norm(values_BD, (192,), gain, offset)
    torch.testing.assert_close(parts.final_norm(values_BD), expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_is_gone_is_said_and_a_named_one_is_refused(plan: Plan, tmp_path: Path) -> None:
    gone = changed(plan, "model", id=str(tmp_path / "gone"))
    parts = find_model_parts(gone, model=None, device=CPU, with_norm=True)
    assert parts.token_bytes_V is None and parts.final_norm is None
    assert parts.lacking is not None and f"{tmp_path / 'gone'} does not exist" in parts.lacking
    with pytest.raises(RequestError, match="does not exist"):
        find_model_parts(plan, model=str(tmp_path / "gone"), device=CPU, with_norm=False)


def test_a_model_that_is_not_in_the_hub_cache_is_not_fetched(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's library is told to look on this machine alone; what it then does is up to it."""
    import huggingface_hub

    plainly, asked = huggingface_hub.snapshot_download, []

    def watched(*names: str, **options: Any) -> str:
        asked.append(options["local_files_only"])
        return plainly(*names, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", watched)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    parts = find_model_parts(
        changed(plan, "model", id="no-such/model"), model=None, device=CPU, with_norm=False
    )
    assert asked == [True]
    assert parts.lacking is not None and "nothing is fetched for this" in parts.lacking


def test_other_weights_are_refused(plan: Plan) -> None:
    other = changed(plan, "model", weights_sha256="0" * 64)
    parts = find_model_parts(other, model=None, device=CPU, with_norm=False)
    assert parts.token_bytes_V is None and "demo has other weights" in str(parts.lacking)
    with pytest.raises(
        RequestError, match=r"demo has other weights than the model of the cache \(demo\): say with"
    ):
        find_model_parts(other, model="demo", device=CPU, with_norm=False)


def test_another_tokenizer_gives_no_bytes(plan: Plan, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(demo.MODEL, tmp_path / "model"))
    with (copy / "tokenizer.json").open("a") as file:
        file.write("\n")
    parts = find_model_parts(changed(plan, "model", id=str(copy)), model=None, device=CPU, with_norm=False)
    assert parts.token_bytes_V is None and "another tokenizer than the cache" in str(parts.lacking)
    with pytest.raises(RequestError, match="cannot give bits per byte: it has another tokenizer"):
        find_model_parts(plan, model=str(copy), device=CPU, with_norm=False)
