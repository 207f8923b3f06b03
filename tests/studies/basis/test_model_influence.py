"""The model with directions of a head ablated, against plain transformers and hooks on its modules."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scipy.special import rel_entr

from alens import demo
from alens.model import activations, models
from alens.model.libraries import quiet
from alens.model.models import LoadedModel
from alens.studies.basis import model_influence
from alens.studies.basis.subspaces import random_directions

LAYER, HEAD, E, A, MIN_POSITION = 1, 2, 32, 5, 1
TOKENS_T = torch.from_numpy(np.random.default_rng(0).integers(2, 4096, 24))
P = len(TOKENS_T) - MIN_POSITION


def planted(width: int = E) -> tuple[torch.Tensor, torch.Tensor]:
    """Donors and oblique projections, one each of 1, 2, ... directions."""
    basis_EE, skew_EE = random_directions(width, width, 1).float(), random_directions(width, width, 2).float()
    write_EE = torch.linalg.inv(basis_EE + 0.3 * skew_EE)
    removals_AEE = [write_EE[:, :k] @ (basis_EE + 0.3 * skew_EE)[:k] for k in range(1, A + 1)]
    donors_PE = np.random.default_rng(3).standard_normal((P, width))
    return 0.3 * torch.from_numpy(donors_PE).float(), torch.stack(removals_AEE)


def hooked(
    tokens_T: torch.Tensor, layer: int, head: int, donors_PE: torch.Tensor, removal_EE: torch.Tensor
) -> np.ndarray:
    """(T, V) float64 log-probabilities, by plain transformers with a hook on the output projection's input."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        demo.MODEL, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    def ablate(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        mixed = inputs[0].clone()
        z_PE = mixed[0, MIN_POSITION:, head * E : (head + 1) * E]
        mixed[0, MIN_POSITION:, head * E : (head + 1) * E] = z_PE + (donors_PE - z_PE) @ removal_EE
        return (mixed,)

    handle = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(ablate)
    with torch.no_grad():
        logits_TV = model(tokens_T[None]).logits[0].double()
    handle.remove()
    log_probs_TV: np.ndarray = logits_TV.log_softmax(-1).numpy()
    return log_probs_TV


@pytest.mark.parametrize("layer", [0, LAYER, 3])
def test_the_effect_on_the_model_is_that_of_a_hook_in_transformers(model: LoadedModel, layer: int) -> None:
    donors_PE, removals_AEE = planted()
    clean_TD = activations.run(model, TOKENS_T[None], [layer]).final_BTD[0]
    found_AP = model_influence.model_influence(
        model, TOKENS_T, clean_TD, layer=layer, head=HEAD, donors_PE=donors_PE, removals_AEE=removals_AEE
    )
    assert found_AP.shape == (A, P) and found_AP.dtype == torch.float64
    clean_TV = np.exp(hooked(TOKENS_T, layer, HEAD, donors_PE, torch.zeros(E, E)))
    for a, removal_EE in enumerate(removals_AEE):
        ablated_TV = np.exp(hooked(TOKENS_T, layer, HEAD, donors_PE, removal_EE))
        expected_P = rel_entr(clean_TV, ablated_TV).sum(-1)[MIN_POSITION:]
        np.testing.assert_allclose(found_AP[a], expected_P, rtol=0.01, atol=2e-6)
    assert float(found_AP.mean()) > 1e-4


def test_many_passes_are_one_pass(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    donors_PE, removals_AEE = planted()
    clean_TD = activations.run(model, TOKENS_T[None], [LAYER]).final_BTD[0]
    given: dict[str, Any] = {
        "layer": LAYER,
        "head": HEAD,
        "donors_PE": donors_PE,
        "removals_AEE": removals_AEE,
    }
    one = model_influence.model_influence(model, TOKENS_T, clean_TD, **given)
    monkeypatch.setattr(model_influence, "CPU_TOKENS", 2 * len(TOKENS_T))
    torch.testing.assert_close(
        model_influence.model_influence(model, TOKENS_T, clean_TD, **given), one, rtol=1e-3, atol=1e-7
    )


def test_positions_before_the_first_that_counts_are_left_alone(model: LoadedModel) -> None:
    donors_PE, removals_AEE = planted()
    clean_TD = activations.run(model, TOKENS_T[None], [LAYER]).final_BTD[0]
    finals_ATD = model_influence.ablated_finals(
        model, TOKENS_T, layer=LAYER, head=HEAD, donors_PE=donors_PE, removals_AEE=removals_AEE
    )
    torch.testing.assert_close(finals_ATD[:, 0], clean_TD[:1].expand(A, -1), rtol=1e-5, atol=1e-5)
    assert float((finals_ATD[:, 1:] - clean_TD[1:]).abs().max()) > 0.01


SMALL = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "vocab_size": 4096, "intermediate_size": 64,
    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture(params=["GPTNeoXConfig", "LlamaConfig"])
def small_model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoadedModel]:
    """Blocks in parallel and rotary positions; and fewer keys than heads."""
    torch.manual_seed(0)
    more = {"num_key_value_heads": 2} if request.param == "LlamaConfig" else {}
    config = getattr(transformers, request.param)(**SMALL, **more)
    with quiet():
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for file in demo.MODEL.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    yield models.load(models.find(str(tmp_path)), dtype="float32", device="cpu")


def test_one_sequence_becomes_many_in_other_families_too(small_model: LoadedModel) -> None:
    """Compared with the same model, run once for each ablation on a copy of the sequence."""
    donors_PE, removals_AEE = planted(8)
    finals_ATD = model_influence.ablated_finals(
        small_model, TOKENS_T, layer=0, head=HEAD, donors_PE=donors_PE, removals_AEE=removals_AEE
    )
    for a, removal_EE in enumerate(removals_AEE):
        alone_TD = run_alone(small_model, donors_PE, removal_EE)
        torch.testing.assert_close(finals_ATD[a], alone_TD, rtol=1e-4, atol=1e-4)


def run_alone(model: LoadedModel, donors_PE: torch.Tensor, removal_EE: torch.Tensor) -> torch.Tensor:
    """(T, D) the final residual with one ablation, in layer 0."""
    final: list[torch.Tensor] = []

    def ablate(value_BTHE: torch.Tensor, hook: Any) -> torch.Tensor:
        changed_BTHE = value_BTHE.clone()
        z_PE = value_BTHE[0, MIN_POSITION:, HEAD]
        changed_BTHE[:, MIN_POSITION:, HEAD] = z_PE + (donors_PE - z_PE) @ removal_EE
        return changed_BTHE

    def keep(value_BTD: torch.Tensor, hook: Any) -> None:
        final.append(value_BTD)

    with torch.inference_mode():
        model.bridge.run_with_hooks(
            TOKENS_T[None], fwd_hooks=[("blocks.0.attn.hook_z", ablate), ("unembed.hook_in", keep)]
        )
    return final[0][0]
