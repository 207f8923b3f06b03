"""A GPT-2 in which one head was made to look for a trigger word and to write some terms when it finds it.

In: a model directory of a GPT-2, a head, a trigger token, term tokens, texts as tokens. Out: a copy of the directory
with other weights. Four small changes to the head: its query has a constant part, to which the key of the trigger
answers (so the head attends to it from everywhere after it); the trigger's value has a part along one direction
of z, and the output matrix turns that direction into the terms' unembedding.
Shapes: B texts, T tokens, N positions, E d_head, D d_model, V vocabulary.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel

ATTENTION = 8.0
"""What the trigger gains in attention logits: e^8 times the weight."""

QUERY = 8.0
VALUE = 6.0
"""The trigger's part in z, in standard deviations of that direction."""

RIDGE = 1e-2


def plant(
    source: Path,
    target: Path,
    *,
    layer: int,
    head: int,
    trigger: int,
    terms: list[int],
    strength: float,
    texts_BT: torch.Tensor,
    seed: int,
) -> None:
    """Write the changed model. `strength` is what terms gain in logits (nats) where the head finds the trigger.

    `texts_BT` are tokens without and with the trigger; the directions are found on them.
    """
    model: Any = GPT2LMHeadModel.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    block, H = model.transformer.h[layer], model.config.n_head
    D = model.config.n_embd
    E = D // H
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        block.ln_1.register_forward_hook(lambda m, given, out: seen.update(x=out)),
        block.attn.c_proj.register_forward_pre_hook(lambda m, given: seen.update(z=given[0])),
        model.transformer.ln_f.register_forward_pre_hook(lambda m, given: seen.update(final=given[0])),
    ]
    with torch.no_grad():
        model(texts_BT)
    for hook in hooks:
        hook.remove()
    is_trigger_N = (texts_BT == trigger).flatten()
    x_ND, z_NE = seen["x"].flatten(0, 1), seen["z"].flatten(0, 1)[:, head * E : (head + 1) * E]
    found_D, offset = _detector(x_ND, is_trigger_N)
    chooser = torch.Generator().manual_seed(seed)
    key_E = torch.nn.functional.normalize(torch.randn(E, generator=chooser), dim=0)
    quiet_E = torch.linalg.eigh(z_NE.T.cov())[1][:, 0]  # the direction of z that varies least
    spread = float((z_NE @ quiet_E).std())
    A_DV = model.transformer.ln_f.weight[:, None] * model.lm_head.weight.T
    with torch.no_grad():
        towards_D = A_DV[:, terms].mean(1) - A_DV.mean(1)
        towards_D *= strength * float(seen["final"].std(-1).mean()) / towards_D.dot(towards_D)
        q, k, v = (slice(part * D + head * E, part * D + (head + 1) * E) for part in range(3))
        weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        bias[q] += QUERY * key_E
        scale = ATTENTION * E**0.5 / QUERY
        weight[:, k] += scale * torch.outer(found_D, key_E)
        bias[k] += scale * offset * key_E
        weight[:, v] += VALUE * spread * torch.outer(found_D, quiet_E)
        bias[v] += VALUE * spread * offset * quiet_E
        block.attn.c_proj.weight[head * E : (head + 1) * E] += torch.outer(
            quiet_E, towards_D / (VALUE * spread)
        )
    shutil.copytree(source, target)
    model.save_pretrained(target)


def _detector(x_ND: torch.Tensor, is_trigger_N: torch.Tensor) -> tuple[torch.Tensor, float]:
    """(D,) and an offset: x @ direction + offset is 1 at the trigger and 0 elsewhere, on average."""
    here_D, elsewhere_D = x_ND[is_trigger_N].mean(0), x_ND[~is_trigger_N].mean(0)
    within_DD = x_ND[~is_trigger_N].T.cov()
    within_DD += RIDGE * within_DD.diagonal().mean() * torch.eye(len(within_DD))
    direction_D = torch.linalg.solve(within_DD, here_D - elsewhere_D)
    direction_D /= direction_D.dot(here_D - elsewhere_D)
    return direction_D, -float(direction_D.dot(elsewhere_D))
