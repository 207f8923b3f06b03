"""Head Pursuit: how much of what a head writes lies along the unembedding vectors of some tokens.

In: what heads write on prompts and controls, and tokens. Out: `Rates`: for each prompt the share of the squared norm that a few of their
unembedding vectors explain, all in all and by token. No lens's map takes part.
Source: Basile and others, "Head Pursuit: Probing Attention Specialization in Multimodal Transformers" (arXiv 2510.21518): the
head's outputs on many samples at once, decomposed by Simultaneous Orthogonal Matching Pursuit (Tropp, Gilbert and Strauss
2006) over the unembedding as a dictionary, restricted to the tokens of a concept; heads rank by the variance explained.
Departures: outputs are taken as the unembedding sees them (less E[z] W_O, through the last norm at its scale); a share is
taken prompt by prompt, so that it can be tested; tokens are chosen on prompts and controls together, so that labels may be
permuted; and shares stand beside those of as many tokens drawn at random, because any few directions explain something.
Shapes: N rows, D d_model, W tokens, K chosen ones, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch

from alens.statistics.bootstrap import Array
from alens.studies.location.scored import Scored
from alens.studies.location.term_rates import Rates, TermRates

ATOMS = 16
"""Tokens that are chosen at most: as many as there are, for most lists."""

DRAWS = 8
"""Sets of random tokens."""

LEFT = 1e-6
"""An unembedding vector of which so little is left beside those chosen, as a share of its squared norm, is not chosen."""


def pursue(outputs_ND: torch.Tensor, atoms_WD: torch.Tensor, most: int = ATOMS) -> tuple[list[int], Array]:
    """Places of the chosen tokens in their order, and (N, K) the share of each row's squared norm that each adds."""
    rows_ND, atoms_WD = outputs_ND.double(), torch.nn.functional.normalize(atoms_WD.double(), dim=-1)
    left_ND, free_WD = rows_ND, atoms_WD
    chosen: list[int] = []
    gains: list[torch.Tensor] = []
    squares_N = rows_ND.square().sum(-1).clamp_min(torch.finfo(torch.float64).tiny)
    for _ in range(min(most, len(atoms_WD))):
        can_W = free_WD.square().sum(-1) > LEFT
        can_W[chosen] = False
        if not bool(can_W.any()):
            break
        # Tropp's rule: the largest sum of absolute products with what is left of all rows.
        products_W = (left_ND @ atoms_WD.T).abs().sum(0).masked_fill(~can_W, -1.0)
        best = int(products_W.argmax())
        axis_D = free_WD[best] / free_WD[best].norm()
        along_N = left_ND @ axis_D
        left_ND = left_ND - along_N[:, None] * axis_D
        free_WD = free_WD - (free_WD @ axis_D)[:, None] * axis_D
        chosen.append(best)
        gains.append(along_N.square() / squares_N)
    return chosen, torch.stack(gains, -1).cpu().numpy()


def shares(
    outputs_ND: torch.Tensor, W_U_DV: torch.Tensor, groups: Sequence[Sequence[int]], seed: int
) -> tuple[Array, Array]:
    """(N, G) the share that the tokens of each group add, chosen among those of all groups, and (N,) the share that as many
    random tokens explain, mean over draws."""
    group_of = {token: number for number, tokens in reversed(list(enumerate(groups))) for token in tokens}
    tokens = list(group_of)
    chosen, gains_NK = pursue(outputs_ND, W_U_DV[:, tokens].T)
    by_group_NG = np.zeros((len(outputs_ND), len(groups)))
    for place, gain_N in zip(chosen, gains_NK.T, strict=True):
        by_group_NG[:, group_of[tokens[place]]] += gain_N
    random = np.random.default_rng(seed)
    chance_N = np.zeros(len(outputs_ND))
    for _ in range(DRAWS):
        drawn = random.choice(W_U_DV.shape[1], size=len(tokens), replace=False)
        chance_N += pursue(outputs_ND, W_U_DV[:, torch.from_numpy(drawn)].T)[1].sum(-1) / DRAWS
    return by_group_NG, chance_N


def pursuit_rates(
    scored: Scored, W_U_DV: torch.Tensor, groups: Sequence[TermRates], seed: int
) -> tuple[list[Rates], Rates]:
    """Shares on the prompts of each group, prompts first, in the place of probabilities; and the shares on the prompts that
    random tokens explain."""
    prompt_R = [rates.prompt_R for rates in groups]
    ends = np.cumsum([len(one) for one in prompt_R])
    by_head: list[list[Array]] = [[] for _ in groups]
    by_chance: list[Array] = []
    for head in range(len(groups[0].outputs)):
        outputs_RD = torch.cat([rates.outputs[head] for rates in groups])
        by_token_RG, chance_R = shares(outputs_RD, W_U_DV, scored.token_groups, seed)
        parts = zip(by_head, np.split(by_token_RG, ends[:-1]), prompt_R, strict=True)
        for of_group, share_RG, of_prompt_R in parts:
            of_group.append(_by_prompt(share_RG, of_prompt_R))
        by_chance.append(_by_prompt(chance_R[: ends[0], None], prompt_R[0]))
    names = len(scored.token_groups)
    chance_PFG = np.repeat(np.stack(by_chance, 1) / names, names, -1)  # any of them as much as another
    return [_rates(np.stack(of_group, 1)) for of_group in by_head], _rates(chance_PFG)


def _by_prompt(share_RG: Array, prompt_R: torch.Tensor) -> Array:
    """(P, G) the means over the positions of each prompt."""
    counts_P = np.bincount(prompt_R.numpy())
    sums_PG = np.zeros((len(counts_P), share_RG.shape[1]))
    np.add.at(sums_PG, prompt_R.numpy(), share_RG)
    means_PG: Array = sums_PG / counts_P[:, None]
    return means_PG


def _rates(share_PFG: Array) -> Rates:
    total_PF = share_PFG.sum(-1)
    return Rates(log_p_PF=total_PF, p_PF=total_PF, by_term_FW=share_PFG.mean(0))
