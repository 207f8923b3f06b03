"""What the loaded model really does is found by numbers, whatever it is called."""

from pathlib import Path

import pytest

from alens import CacheRequest, write_cache
from alens.errors import RequestError
from alens.store.schema import CacheSettings

from .families import FAMILIES, SIZE, save

SETTINGS = CacheSettings(seq_len=16, rows_per_shard=64, max_rows=128, batch_size=2, top_k=8, tail_samples=4)


def request(model: Path, store: Path) -> CacheRequest:
    return CacheRequest(model=str(model), corpus="demo", store=store, settings=SETTINGS, device="cpu")


def test_a_model_that_looks_ahead_is_refused_before_the_plan(tmp_path: Path) -> None:
    options = {**SIZE, "max_position_embeddings": 64, "intermediate_size": 64, "initializer_range": 0.2}
    model = save(tmp_path / "bert", "BertConfig", options, kind="BertForMaskedLM")
    with pytest.raises(
        RequestError, match=r"^BertForMaskedLM is not causal: .* give a causal language model$"
    ):
        write_cache(request(model, tmp_path / "store"))
    assert not (tmp_path / "store" / "plan.json").exists()


def test_a_model_that_the_bridge_cannot_run_is_refused_in_a_line(tmp_path: Path) -> None:
    options = {**FAMILIES["opt"].options, "do_layer_norm_before": False}  # the norm last, as OPT-350m has it
    model = save(tmp_path / "opt", "OPTConfig", options)
    with pytest.raises(RequestError, match=r"^OPTForCausalLM does not run in TransformerLens: .*") as caught:
        write_cache(request(model, tmp_path / "store"))
    assert len(str(caught.value).splitlines()) == 1
