import json
import shutil
from pathlib import Path

import pytest
import torch

from alens import demo
from alens.errors import RequestError
from alens.model import logit_fingerprint, models


def test_the_tokens_are_spread_over_the_vocabulary() -> None:
    record = models.find("demo").record
    assert logit_fingerprint.tokens(record) == list(range(128, 4096, 256))


def test_transformer_lens_computes_what_transformers_computes() -> None:
    from transformers import AutoModelForCausalLM

    model = models.load(models.find("demo"), dtype="float32", device="cpu")
    record = model.source.record
    plain = AutoModelForCausalLM.from_pretrained(demo.MODEL, dtype=torch.float32, attn_implementation="eager")
    ours_TV, theirs_TV = (
        logit_fingerprint.logits(model.bridge, record),
        logit_fingerprint.logits(plain, record),
    )
    assert ours_TV.shape == (16, 4096)
    torch.testing.assert_close(ours_TV, theirs_TV, rtol=0, atol=1e-4)


def test_a_setting_that_transformer_lens_leaves_out_is_refused(tmp_path: Path) -> None:
    """TransformerLens ignores that GPT-2's attention scores are not scaled; its logits were 5.4 off."""
    folder = Path(shutil.copytree(demo.MODEL, tmp_path / "model"))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"scale_attn_weights": False}))
    with pytest.raises(
        RequestError, match=r"TransformerLens computes other logits .* than transformers does, 5\.41 apart"
    ):
        models.load(models.find(str(folder)), dtype="float32", device="cpu")
