"""One change of the model, on all prompts and on a text.

In: lenses with their model, prompts, terms to watch, and perhaps the windows of a text. Out: an `EditEffect` for each
list of edits, against the model as it is, which runs once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from alens.job.progress import Progress, Report, silent
from alens.model.edits import Edit
from alens.reading.lensed import LensedModel
from alens.reading.terms import Term
from alens.studies.injection.next_token import NextTokenEffect, PromptEffects
from alens.studies.injection.perplexity import Windows, loss_of


@dataclass(frozen=True, kw_only=True)
class TextChange:
    """The loss on the text under a change."""

    nats: float
    """A token."""
    added: float
    """Over the model as it is, nats a token."""
    interval: tuple[float, float] | None
    """95 % of `added`, by a bootstrap over windows; None where there is one window."""


@dataclass(frozen=True, kw_only=True)
class EditEffect:
    """What a list of edits does."""

    prompts: tuple[NextTokenEffect, ...]
    text: TextChange | None


@dataclass(frozen=True, kw_only=True)
class CleanRun:
    """The model as it is."""

    prompts: tuple[NextTokenEffect, ...]
    nats: float | None
    """A token of the text."""
    tokens: int | None
    """Of the text, as many as are predicted."""
    windows: int | None
    """They stand in."""


class EditRunner:
    """Runs changes. Attribute: `clean`."""

    def __init__(
        self,
        reader: LensedModel,
        prompts: Sequence[str],
        terms: Sequence[Term],
        windows: Windows | None,
        *,
        top: int = 5,
        seed: int = 0,
        report: Report = silent,
        total: int = 0,
    ) -> None:
        """`total` is how many changes there will be, for `report`. Raises `RequestError` for a wrong prompt."""
        self._reader, self._windows, self._seed = reader, windows, seed
        self._report, self._done, self._total = report, 0, total
        report(Progress(stage="run", total=total, unit="changes"))
        ids = [reader.tokens(prompt) for prompt in prompts]
        self._prompts = [PromptEffects(reader, tokens, terms, top) for tokens in ids]
        self._loss = None if windows is None else loss_of(reader.model, windows, [])
        self.clean = CleanRun(
            prompts=tuple(prompt.clean for prompt in self._prompts),
            nats=None if self._loss is None else self._loss.mean,
            tokens=None if windows is None else windows.predicted,
            windows=None if windows is None else windows.count,
        )

    def run(self, on_prompts: Sequence[Edit], on_text: Sequence[Edit]) -> EditEffect:
        """The change by edits of the prompts, and by the same ones of the text: they differ where positions do.

        Without any edit the model does not run again."""
        effects = self.clean.prompts
        if on_prompts:
            effects = tuple(prompt.under(on_prompts) for prompt in self._prompts)
        text = None
        if self._windows is not None and self._loss is not None:
            loss = loss_of(self._reader.model, self._windows, on_text) if on_text else self._loss
            added, interval = loss.more_than(self._loss, self._seed)
            text = TextChange(nats=loss.mean, added=added, interval=interval)
        self._done += 1
        self._report(Progress(stage="run", done=self._done, total=self._total, unit="changes"))
        return EditEffect(prompts=effects, text=text)
