"""Tokens -> directions in the residual stream: by a head's lens, its write, its effect lens, the unembedding, at random.

In: terms with their tokens, a lens, and what the head typically holds (`Typical`). Out: unit vectors (D,).

A reading gives log-probabilities of its values x. What it says of the terms is
f(x) = mean over terms of log(sum over the term's tokens of p(token | x)). Its gradient at the typical x is, for an
affine reading, a column of the weight for each token minus the columns' mean under the reading itself: what all
logits have in common makes no difference to a softmax. In the space that a head writes to, a = z W_O:

- `gradient`: pinv(W_O) g, with g the gradient by z: the steepest direction for a unit of norm. The lens on head outputs
  is pinv(W_O) weight ("Attention Lens", arXiv 2310.16270), so this is its contrast of columns. It lies in what the head
  can write.
- `covariance`: g Cov(z) W_O, what the head's output does when the reading of the terms rises over the rows: the
  weights of a reading filter out what varies together, its pattern does not (Haufe et al. 2014, NeuroImage 87, 96).

What a head writes on the terms is a linear function of its output at a fixed scale of the last norm: the logits of their
tokens, centred over the vocabulary. Its direction is gain * (the mean of the tokens' columns of W_U - that of all columns),
within what the head can write. An effect lens M is a linear map of z to what the head adds to the final normed residual, all
in all: its direction is pinv(W_O) M (the mean of the tokens' columns of W_U - that of all columns).

The unembedding reads the residual after the last norm; its direction is that gradient at a fixed scale of the norm,
gain * W_U (shares - p), centred for a layer norm, and may be kept within what the head can write. Where the model caps its
logits, shares - p is multiplied by the slope of the cap at the typical x. Lenses of the residual stream have no W_O.
Shapes: E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch

from alens.errors import RequestError
from alens.lens.maps import LensMaps
from alens.machine.products import soft_capped
from alens.model.models import LoadedModel
from alens.reading.terms import Term
from alens.studies.injection.typical import Typical


def mean_log_probability(log_probs_V: torch.Tensor, terms: Sequence[Term]) -> torch.Tensor:
    """(): the mean over terms of the log of the summed probability of a term's tokens."""
    return torch.stack([log_probs_V[list(term.ids)].logsumexp(0) for term in terms]).mean()


def by_lens(
    maps: LensMaps, W_O_ED: torch.Tensor | None, typical: Typical, terms: Sequence[Term], scaling: str
) -> torch.Tensor:
    """(D,) the lens's direction; `maps` are those of one head, `W_O_ED` is None for the residual stream."""
    with torch.enable_grad():
        values_E = typical.mean_E.clone().requires_grad_(True)
        said = mean_log_probability(maps.logits(0, values_E[None])[0].log_softmax(-1), terms)
        (gradient_E,) = torch.autograd.grad(said, values_E)
    if scaling == "covariance":
        gradient_E = typical.covariance_EE @ gradient_E
        return _unit(gradient_E if W_O_ED is None else gradient_E @ W_O_ED, "lens")
    if W_O_ED is None:
        return _unit(gradient_E, "lens")
    return _unit((torch.linalg.pinv(W_O_ED.double()) @ gradient_E.double()).float(), "lens")


def by_unembedding(
    model: LoadedModel, W_O_ED: torch.Tensor | None, typical: Typical, terms: Sequence[Term]
) -> torch.Tensor:
    """(D,) the unembedding's direction; with `W_O_ED`, kept within what the head can write."""
    W_U_DV, b_U_V = model.W_U_DV.float(), model.b_U_V.float()
    with torch.enable_grad():
        logits_V = (typical.final_mean_D @ W_U_DV + b_U_V).detach().requires_grad_(True)
        capped_V = soft_capped(logits_V, model.logit_cap)
        (shares_V,) = torch.autograd.grad(mean_log_probability(capped_V.log_softmax(-1), terms), logits_V)
    direction_D = W_U_DV @ shares_V
    if model.final_norm is not None:
        direction_D = model.final_norm.pulled_back(direction_D)
    return _unit(direction_D if W_O_ED is None else within(direction_D, W_O_ED), "unembedding")


def by_written(model: LoadedModel, W_O_ED: torch.Tensor, terms: Sequence[Term]) -> torch.Tensor:
    """(D,) the direction, among those that the head can write, that raises the terms' logits most beside all others.

    Each term is its one token, as in `alens.reading`. Needs a last norm that alens knows.
    """
    assert model.final_norm is not None, "what heads write was checked"
    return _unit(within(model.final_norm.pulled_back(_beside_all(model, terms)), W_O_ED), "write")


def by_effect(
    model: LoadedModel, effect_ED: torch.Tensor, W_O_ED: torch.Tensor, terms: Sequence[Term]
) -> torch.Tensor:
    """(D,) the direction, among those that the head can write, that raises the terms' logits most beside all others by its
    effect lens, later layers included. Each term is its one token, as for `by_written`."""
    gradient_E = effect_ED.double() @ _beside_all(model, terms).double()
    return _unit((torch.linalg.pinv(W_O_ED.double()) @ gradient_E).float(), "effect lens")


def _beside_all(model: LoadedModel, terms: Sequence[Term]) -> torch.Tensor:
    """(D,) the mean of the terms' columns of W_U, less that of all columns."""
    W_U_DV = model.W_U_DV.float()
    return W_U_DV[:, [term.token for term in terms]].mean(-1) - W_U_DV.mean(-1)


def at_random(
    W_O_ED: torch.Tensor | None, d_model: int, draws: int, seed: int, device: torch.device
) -> list[torch.Tensor]:
    """`draws` directions (D,), all equally likely among those the head can write (or among all, without W_O)."""
    random = np.random.default_rng(seed)
    drawn = [
        torch.tensor(random.standard_normal(d_model), dtype=torch.float32, device=device)
        for _ in range(draws)
    ]
    return [_unit(d if W_O_ED is None else within(d, W_O_ED), "random draw") for d in drawn]


def within(direction_D: torch.Tensor, W_O_ED: torch.Tensor) -> torch.Tensor:
    """(D,) the part of a direction that the head can write: its projection on the row space of W_O."""
    W_O = W_O_ED.double()
    kept_D: torch.Tensor = torch.linalg.pinv(W_O) @ W_O @ direction_D.double()
    return kept_D.float()


def _unit(direction_D: torch.Tensor, what: str) -> torch.Tensor:
    norm = direction_D.norm()
    if not (torch.isfinite(norm) and norm > 0):
        raise RequestError(f"the {what} assigns no direction to these tokens: its weights are zero there")
    unit_D: torch.Tensor = direction_D / norm
    return unit_D
