"""Maps of tokens are those of the formula, also where heads share values; shares and their control are counted right."""

from pathlib import Path
from typing import Any

import pytest
import torch

from alens.job.progress import silent
from alens.model import models
from alens.studies.families.relations import RelationTokens
from alens.studies.families.token_maps import _shares, token_map_scores

from ...model.families import FAMILIES, save

SAMPLE = list(range(10, 40))


def dense_maps(folder: Path) -> dict[tuple[int, int], torch.Tensor]:
    """(S, V) maps of each head of a Llama, from the weights of transformers alone."""
    from transformers import AutoModelForCausalLM

    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    maps = {}
    with torch.no_grad():
        embedded_SD = plain.model.embed_tokens.weight[SAMPLE]
        lowest = plain.model.layers[0]
        extended_SD = embedded_SD + lowest.mlp(lowest.post_attention_layernorm(embedded_SD))
        W_U_DV = plain.lm_head.weight.T * plain.model.norm.weight[:, None]
        for number, layer in enumerate(plain.model.layers):
            attention = layer.self_attn
            e_SD = layer.input_layernorm(embedded_SD if number == 0 else extended_SD)
            E = attention.head_dim
            for head in range(4):
                group = head // 2
                W_V_DE = attention.v_proj.weight.T[:, group * E : (group + 1) * E]
                W_O_ED = attention.o_proj.weight.T[head * E : (head + 1) * E]
                maps[number, head] = e_SD @ W_V_DE @ W_O_ED @ W_U_DV
    return maps


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four heads in two groups."""
    return save(
        tmp_path_factory.mktemp("llama") / "llama", FAMILIES["llama"].config, FAMILIES["llama"].options
    )


def test_scores_are_those_of_the_formula(llama: Path) -> None:
    loaded = models.load(models.find(str(llama)), dtype="float32", device="cpu")
    pairs = RelationTokens(sources=tuple(SAMPLE), targets=tuple(range(100, 130)), left_out=0)
    scores = token_map_scores(loaded, (0, 1), SAMPLE, {"pairs": pairs}, top_k=400, report=silent)
    for place, map_SV in dense_maps(llama).items():
        for name, targets, sign in (
            ("copying", SAMPLE, 1),
            ("suppression", SAMPLE, -1),
            ("pairs", pairs.targets, 1),
        ):
            reached_SK = (sign * map_SV).topk(400).indices
            hits = [targets[s] in reached_SK[s].tolist() for s in range(30)]
            wrong = [
                sum(target in reached_SK[s].tolist() for target in targets if target != targets[s]) / 29
                for s in range(30)
            ]
            expected = (sum(hits) / 30, sum(wrong) / 30)
            assert scores[name][place] == pytest.approx(expected, abs=0.02), (name, place)


def test_a_control_counts_every_wrong_partner() -> None:
    top_SK = torch.tensor([[1, 2], [1, 2], [9, 3], [8, 7]])
    score, control = _shares(top_SK, [1, 2, 3, 3])  # three partners
    assert score == pytest.approx(3 / 4)
    assert control == pytest.approx((1 + 1 + 0 + 0) / 4 / 2)
