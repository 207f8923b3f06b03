"""The losses that lenses can be fitted with. `OBJECTIVES` names those that come with alens.

objective.py              what an objective is
forward_kl.py             KL(model, lens)
cross_entropy.py          loss and gradients together, shared by several objectives
cross_entropy_tiles.py    the same in PyTorch, a tile of logits at a time
cross_entropy_triton.py   the same on CUDA: sorting, launching
cross_entropy_kernels.py  the Triton kernels
reverse_kl.py             KL(lens, model), equation 1 of the paper
last_position.py          forward KL on last positions, as in the published code
input_relevance.py        the row's own context as the target
"""

OBJECTIVES = {
    "forward-kl": "alens.fit.objectives.forward_kl:ForwardKL",
    "reverse-kl": "alens.fit.objectives.reverse_kl:ReverseKL",
    "last-position": "alens.fit.objectives.last_position:LastPosition",
    "input-relevance": "alens.fit.objectives.input_relevance:InputRelevance",
}
"""Name -> `module:Class`."""
