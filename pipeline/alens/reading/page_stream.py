"""What the model would say after each layer, for the page of `alens read --html`: the logit lens of the residual stream.

In: a loaded model and the tokens of a prompt. Out: at each position, for every layer, lists, KL and entropy of the stream
after the layer, sent through the last norm and the unembedding (nostalgebraist, "interpreting GPT: the logit lens", 2020).
After the last layer this is the model's own output.
Shapes: T positions, D d_model, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import torch

from alens.errors import RequestError
from alens.model.activations import run as run_model
from alens.reading.head_reader import HeadReader
from alens.reading.page_data import GridReadings
from alens.reading.page_tokens import TokenTable, columns, placed, thousandths
from alens.reading.ranking import Ranking, best
from alens.reading.terms import Term
from alens.statistics.divergences import entropy, kl_of_log_probs

SITE = "resid_post"


class PageStream:
    """The residual stream of one prompt after each layer, while the page is made.

    Attribute: `grids`, one for each position, with a cell for each layer of the model.
    """

    def __init__(self, reader: HeadReader, ids: Sequence[int], where: Sequence[int]) -> None:
        """Raises `RequestError` where TransformerLens does not show the stream of this model."""
        self._model = reader.model
        layers = range(self._model.source.record.n_layers)
        ran = run_model(self._model, torch.tensor([list(ids)]), layers, (SITE,))
        with torch.inference_mode():
            self._final_LTD = [
                self._model.bridge.ln_final(ran.sites_BTD[SITE, layer][0][list(where)]) for layer in layers
            ]
        self._total_LT: list[torch.Tensor] = []
        self.grids = [GridReadings(kl=[], entropy=[]) for _ in where]

    def add_lists(
        self,
        table: TokenTable,
        hows: Mapping[str, Ranking],
        model_TV: torch.Tensor,
        log_mean_V: torch.Tensor | None,
    ) -> None:
        """Fill lists, KL and entropy; `model_TV` are the model's log-probabilities."""
        for final_TD in self._final_LTD:
            logits_TV = self._logits(final_TD, slice(None))
            self._total_LT.append(logits_TV.logsumexp(-1, keepdim=True))
            log_probs_TV = logits_TV - self._total_LT[-1]
            listed = {name: table.lists(*best(log_probs_TV, log_mean_V, how)) for name, how in hows.items()}
            kl_T = thousandths(kl_of_log_probs(model_TV, log_probs_TV[None])[0])
            for at, (grid, kl, unsure) in enumerate(
                zip(self.grids, kl_T, thousandths(entropy(log_probs_TV)), strict=True)
            ):
                grid.kl.append(kl)
                grid.entropy.append(unsure)
                for name, lists in listed.items():
                    grid.lists.setdefault(name, []).append(lists[at])

    def keep(
        self, terms: Sequence[Term], kept: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]
    ) -> None:
        """Add the log-probabilities of terms, then of the `tokens` of each position, which the table has at `kept`."""
        for at, grid in enumerate(self.grids):
            ids = [*(token for term in terms for token in term.ids), *tokens[at]]
            log_probs_LC = torch.stack(
                [
                    self._logits(final_TD[at], ids) - total_T1[at]
                    for final_TD, total_T1 in zip(self._final_LTD, self._total_LT, strict=True)
                ]
            )
            chosen_LC = columns(log_probs_LC, *placed(terms, tokens[at]))
            grid.keep(thousandths(chosen_LC.T), [*range(len(terms)), *kept[at]])

    def _logits(self, final_TD: torch.Tensor, tokens: slice | list[int]) -> torch.Tensor:
        """(T, V) or (T, C) logits from the stream behind the last norm."""
        with torch.inference_mode():
            return self._model.logits(final_TD, tokens)


def page_stream(reader: HeadReader, ids: Sequence[int], where: Sequence[int]) -> PageStream | None:
    """The stream of a prompt at some positions; None where TransformerLens does not show it."""
    try:
        return PageStream(reader, ids, where)
    except RequestError:
        return None
