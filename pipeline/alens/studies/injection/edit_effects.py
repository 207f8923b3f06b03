"""What edits of the model do to the next token of prompts and to the loss on a text.

In: lenses with their model, prompts, terms to watch, and perhaps the windows of a text. Out: an `EditEffect` for each
list of edits, against the model as it is, which runs once; each pass begins at its first edit (`model/edited_runs.py`).
Shapes: T tokens, V vocabulary.
"""

from collections.abc import Sequence

import torch

from alens.job.progress import Progress, Report, silent
from alens.model.edited_runs import EditedRuns
from alens.model.edits import Edit
from alens.reading.lensed_model import LensedModel
from alens.reading.terms import Term
from alens.statistics import divergences
from alens.studies.injection.perplexity import Loss, Windows, loss_of
from alens.studies.injection.result import (
    CleanRun,
    EditEffect,
    NextToken,
    NextTokenEffect,
    TermEffect,
    TextChange,
)


class PromptEffects:
    """One prompt under edits. Attributes: `ids`, `clean` (the `NextTokenEffect` of no edit)."""

    def __init__(
        self,
        reader: LensedModel,
        ids: Sequence[int],
        terms: Sequence[Term],
        top: int,
        layers: Sequence[int] = (),
        quick: bool | None = None,
    ) -> None:
        """`layers` and `quick` are as `EditedRuns` takes them."""
        self.ids, self._reader, self._terms, self._top = list(ids), reader, list(terms), top
        self.runs = EditedRuns(reader.model, [torch.tensor([self.ids])], layers, quick=quick)
        self._clean_V = self._log_probs(self.runs.clean[0].final_BTD)
        self.clean = self._effect(self._clean_V)

    def under(self, edits: Sequence[Edit]) -> NextTokenEffect:
        """The next token with `edits` made; one forward pass."""
        (final_BTD,) = self.runs.under(edits)
        return self._effect(self._log_probs(final_BTD))

    def _log_probs(self, final_BTD: torch.Tensor) -> torch.Tensor:
        return self._reader.log_probs(final_BTD[:, -1:])[0, 0].double()

    def _effect(self, log_probs_V: torch.Tensor) -> NextTokenEffect:
        best = log_probs_V.topk(self._top)
        ids = list(dict.fromkeys(token for term in self._terms for token in term.ids))
        logs = [float(log_probs_V[list(term.ids)].logsumexp(0)) for term in self._terms]
        return NextTokenEffect(
            probability=float(log_probs_V[ids].exp().sum()),
            log_probability=sum(logs) / len(logs) if logs else None,
            terms=tuple(_term_effect(term, log_probs_V) for term in self._terms),
            kl=float(divergences.kl_between_log_probs(self._clean_V, log_probs_V)),
            top=tuple(
                NextToken(token=self._reader.text(token), id=token, probability=probability)
                for token, probability in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
            ),
        )


def _term_effect(term: Term, log_probs_V: torch.Tensor) -> TermEffect:
    log_probs = log_probs_V[list(term.ids)]
    return TermEffect(
        term=term.text,
        probability=float(log_probs.exp().sum()),
        rank=1 + int((log_probs_V > log_probs.max()).sum()),
    )


class EditRunner:
    """Runs edits on all prompts and on the text. Attribute: `clean`, the model as it is."""

    def __init__(
        self,
        reader: LensedModel,
        prompts: Sequence[str],
        terms: Sequence[Term],
        windows: Windows | None,
        *,
        layers: Sequence[int] = (),
        top: int = 5,
        seed: int = 0,
        report: Report = silent,
        total: int = 0,
    ) -> None:
        """Run the model as it is. `layers` are the first layers of the edits that will follow, from which they are run; `total`,
        for `report`, is how many there will be.

        Raises `RequestError` for a prompt that cannot be read.
        """
        self._reader, self._windows, self._seed = reader, windows, seed
        self._report, self._done, self._total = report, 0, total
        report(Progress(stage="run", total=total, unit="changes"))
        ids = [reader.tokens(prompt) for prompt in prompts]
        self._prompts: list[PromptEffects] = []
        for tokens in ids:
            quick = self._prompts[0].runs.quick if self._prompts else None
            self._prompts.append(PromptEffects(reader, tokens, terms, top, layers, quick))
        self._text = None
        if windows is not None:
            self._text = EditedRuns(reader.model, windows.batches, layers, quick=self._prompts[0].runs.quick)
        self._loss = self._loss_under([])
        self.clean = CleanRun(
            prompts=tuple(prompt.clean for prompt in self._prompts),
            nats=None if self._loss is None else self._loss.mean,
            tokens=None if windows is None else windows.predicted,
            windows=None if windows is None else windows.count,
        )

    def run(self, on_prompts: Sequence[Edit], on_text: Sequence[Edit]) -> EditEffect:
        """The effect of edits; those on prompts and on the text may be at other positions.

        Without an edit the model does not run again.
        """
        effects = self.clean.prompts
        if on_prompts:
            effects = tuple(prompt.under(on_prompts) for prompt in self._prompts)
        text = None
        if self._windows is not None and self._loss is not None:
            loss = self._loss_under(on_text) if on_text else self._loss
            assert loss is not None
            added, interval = loss.more_than(self._loss, self._seed)
            text = TextChange(nats=loss.mean, added=added, interval=interval)
        self._done += 1
        self._report(Progress(stage="run", done=self._done, total=self._total, unit="changes"))
        return EditEffect(prompts=effects, text=text)

    def _loss_under(self, edits: Sequence[Edit]) -> Loss | None:
        if self._windows is None or self._text is None:
            return None
        return loss_of(self._reader.model, self._windows, self._text, edits)
