"""Ablation: take a head's contribution away, and see what the model does.

In: a model, prompts, heads, perhaps terms to watch and the windows of a text. Out: an `Ablations`: for each head
alone, and for all of them together, the change of the next token after each prompt and of the loss on the text.
`zero` sets a head's z to zero at all positions, so that it writes nothing; `mean` sets it to its mean over the text, so
that it writes the same at every position.
Shapes: B sequences, T tokens, E d_head.
"""

from collections.abc import Sequence

import torch

from alens.errors import RequestError
from alens.heads import Head
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses
from alens.model.edits import Change as Edited
from alens.model.edits import Edit
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import check_list
from alens.reading.terms import Term
from alens.studies.injection.edit_effects import EditRunner
from alens.studies.injection.perplexity import Windows
from alens.studies.injection.result import Ablation, Ablations
from alens.studies.injection.settings import AblateSettings
from alens.studies.injection.typical import typical


def check(lenses: Lenses, settings: AblateSettings, *, has_text: bool) -> None:
    """Raises `RequestError` for a head that the model does not have, or for a mean ablation without a text."""
    record = lenses.record.model
    for layer, head in settings.pairs:
        if not (0 <= layer < record.n_layers and 0 <= head < record.n_heads):
            raise RequestError(
                f"{record.id} has no head {layer}.{head}: it has layers 0 to {record.n_layers - 1}, heads 0 to {record.n_heads - 1}"
            )
    if settings.kind == "mean" and not has_text:
        raise RequestError("a mean ablation needs the heads' means over a text: give one with --text")
    if not 1 <= settings.top <= record.d_vocab:
        raise RequestError(f"top is {settings.top}: it must be in 1 .. {record.d_vocab}")


def ablate(
    reader: LensedModel,
    prompts: Sequence[str],
    settings: AblateSettings,
    *,
    terms: Sequence[Term] = (),
    windows: Windows | None = None,
    report: Report = silent,
) -> Ablations:
    """Take each head away alone, and then all of them. Raises `RequestError` as `check` does."""
    check_list(prompts, "prompts")
    check(reader.lenses, settings, has_text=windows is not None)
    heads = settings.pairs
    edits = _edits(reader, heads, settings.kind, windows)
    together = [heads] if len(heads) > 1 else []
    groups = [*((head,) for head in heads), *together]
    runner = EditRunner(
        reader,
        prompts,
        terms,
        windows,
        top=settings.top,
        seed=settings.seed,
        report=report,
        total=len(groups),
    )
    ablations = []
    for group in groups:
        chosen = [edits[head] for head in group]
        ablations.append(Ablation(heads=group, change=runner.run(chosen, chosen)))
    return Ablations(
        kind=settings.kind,
        prompts=tuple(prompts),
        terms=tuple(terms),
        clean=runner.clean,
        ablations=tuple(ablations),
    )


def _edits(
    reader: LensedModel, heads: Sequence[Head], kind: str, windows: Windows | None
) -> dict[Head, Edit]:
    if kind == "zero" or windows is None:
        return {(layer, head): Edit(layer=layer, head=head, z=torch.zeros_like) for layer, head in heads}
    layers = list(dict.fromkeys(layer for layer, _ in heads))
    statistics = typical(reader.model, windows.batches, layers)
    return {
        (layer, head): Edit(layer=layer, head=head, z=_always(statistics[layer, head].mean_E))
        for layer, head in heads
    }


def _always(mean_E: torch.Tensor) -> Edited:
    """The change of a head's z to its mean, at every position."""

    def change(z_BTE: torch.Tensor) -> torch.Tensor:
        return mean_E.to(z_BTE.dtype).expand_as(z_BTE)

    return change
