"""A fit to SmolLM2 against L-BFGS on the same rows: the training loss ends within 1 % of the optimum.

The text is one passage twice, a document each. One is trained on, the other is held out, and both are cut into the same
sequences: so held-out losses are training losses, and the best evaluation, which a fit keeps, is the best in training.
The loss is convex in the weights. So L-BFGS may begin at the fit's own lens: if more than 1 % were left, it would find it.
Shapes: N rows, B rows of a block, E d_head, D d_model, V vocabulary; P coordinates of a row, the last of them 1.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.optimize import minimize

from alens import load_lenses, open_cache

from .conftest import BY_STORY, STORIES, Made, alens
from .few_coordinates import COORDINATES

pytestmark = pytest.mark.real

ROWS, STEP_ROWS = 2048, 1008
"""Sequences have 64 rows, and the first of each is not trained on: two steps make a pass."""

LAYER, HEADS = 23, (0, 3)
STEPS, RATE = 40, 0.1
EVALUATIONS = 20
BLOCK = 256

Variable = npt.NDArray[np.float64]


@pytest.fixture(scope="session")
def twice_cache(smollm2: Path, plain_tokenizer: Any, made: Made) -> Path:
    """A sealed cache of layer 23: a shard of a passage, and a held-out shard of the same passage. Shared."""

    def make_text(path: Path) -> None:
        ids = plain_tokenizer(" ".join(pq.read_table(STORIES).slice(0, 60)["text"].to_pylist()))["input_ids"]
        passage = plain_tokenizer.decode(ids[: ROWS + 20])
        # End-of-text stands between documents, so the first one brings its own.
        texts = [plain_tokenizer.eos_token + passage, passage]
        pq.write_table(pa.table({"text": texts, "story": [0, 1]}), path)

    text = made("twice.parquet", make_text)
    size = ("--seq-len", "64", "--rows-per-shard", ROWS, "--layers", LAYER)
    return made("twice", lambda store: alens("cache", smollm2, text, store, *BY_STORY, *size))


class Problem(NamedTuple):
    """Forward KL of a lens of one head over all rows of the passage, as a function of its scaled weights."""

    x_NP: torch.Tensor
    expected_PV: torch.Tensor
    """The mean over rows of x times the model's distribution: all that the gradient takes from the targets."""
    entropy: float
    scale_V: torch.Tensor
    """Weights are these times the variable: the loss is flat in rare tokens."""

    def __call__(self, variable: Variable) -> tuple[float, Variable]:
        """KL in nats, and its gradient."""
        W_PV = torch.from_numpy(variable).view(self.expected_PV.shape).float() * self.scale_V
        gradient_PV, loss = -self.expected_PV, -float((self.expected_PV.double() * W_PV).sum())
        for x_BP in self.x_NP.split(BLOCK):
            logits_BV = x_BP @ W_PV
            logsumexp_B1 = logits_BV.logsumexp(1, keepdim=True)
            loss += float(logsumexp_B1.double().sum()) / len(self.x_NP)
            gradient_PV.addmm_(x_BP.T, logits_BV.sub_(logsumexp_B1).exp_(), alpha=1 / len(self.x_NP))
        return loss - self.entropy, (gradient_PV * self.scale_V).double().numpy().ravel()


def problem(store: Path, head: int, lens: tuple[torch.Tensor, torch.Tensor]) -> tuple[Problem, Variable]:
    """The problem of a head, on the coordinates of z that its lens reads, and the place of this lens in it."""
    cache = open_cache(store)
    rows = np.arange(ROWS)
    rows = rows[cache.read("rows/position", rows) >= 1]
    weight_EV, bias_V = (part.double() for part in lens)
    z_NE = torch.from_numpy(cache.z(LAYER, rows)[:, head]).double()
    # The lens has rank 4: its left singular vectors span what it reads.
    read_EC = torch.linalg.svd(weight_EV, full_matrices=False).U[:, :COORDINATES]
    read_NC = z_NE @ read_EC
    mean_C, root_CC = read_NC.mean(0), torch.linalg.cholesky(torch.cov(read_NC.T, correction=0))
    white_NC = torch.linalg.solve_triangular(root_CC, (read_NC - mean_C).T, upper=False).T
    x_NP = torch.cat([white_NC, torch.ones(len(rows), 1)], 1).float()
    W_U_DV = torch.from_numpy(cache.weights("W_U")).float()
    final_ND = torch.from_numpy(cache.read("targets/final", rows)).float()
    expected_PV, entropy = torch.zeros(x_NP.shape[1], W_U_DV.shape[1]), 0.0
    for x_BP, final_BD in zip(x_NP.split(BLOCK), final_ND.split(BLOCK), strict=True):
        log_BV = (final_BD @ W_U_DV).log_softmax(1)
        entropy -= float((log_BV.exp() * log_BV).sum()) / len(rows)
        expected_PV.addmm_(x_BP.T, log_BV.exp(), alpha=1 / len(rows))
    scale_V = (expected_PV[-1] + 1 / len(rows)).rsqrt()
    weight_CV = read_EC.T @ weight_EV
    lens_PV = torch.cat([root_CC.T @ weight_CV, (bias_V + mean_C @ weight_CV)[None]])
    return Problem(x_NP, expected_PV, entropy, scale_V), (lens_PV / scale_V).numpy().ravel()


def test_a_fit_ends_within_1_percent_of_the_optimum(
    twice_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    design = ("--lens", "few_coordinates:FewCoordinates", "--teacher", "exact")
    heads = ("--layers", LAYER, "--heads", ",".join(map(str, HEADS)))
    steps = ("--eval-rows", ROWS, "--batch-rows", STEP_ROWS, "--steps", STEPS, "--lr", RATE, "--tolerance", 0)
    alens("fit", twice_cache, tmp_path / "lenses", *design, *heads, *steps)
    trained, held_out = (set(map(tuple, half)) for half in np.split(open_cache(twice_cache).tokens, 2))
    assert trained == held_out
    lenses = load_lenses(tmp_path / "lenses")
    fitted = lenses.layer(LAYER)
    for place, head in enumerate(HEADS):
        kl, start = problem(twice_cache, head, (fitted.weight_HEV[place], fitted.bias_HV[place]))
        ours, _ = kl(start)
        recorded = lenses.record.held_out[str(LAYER)][place]
        assert ours == pytest.approx(recorded["kl"], rel=1e-3)
        options = {"maxfun": EVALUATIONS, "maxiter": EVALUATIONS, "ftol": 0.0, "gtol": 0.0}
        best = minimize(kl, start, jac=True, method="L-BFGS-B", options=options)
        print(f"{LAYER}.{head}: fit {ours:.4f}, L-BFGS {best.fun:.4f} after {best.nfev} evaluations")
        assert best.fun < ours < 1.01 * best.fun
