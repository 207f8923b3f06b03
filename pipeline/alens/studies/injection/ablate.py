"""Ablation: take a head's contribution away, and see what the model does.

In: a model, prompts, heads, perhaps terms to watch and the windows of a text. Out: an `Ablations`: for each head
alone, and for all of them together, the change of the next token after each prompt and of the loss on the text.
`zero` sets a head's z to zero at all positions, so that it writes nothing; `mean` sets it to its mean, so that it writes the
same at every position. The mean is that over a cache, else over the text, else E[z] that the lens directory holds.
Shapes: B sequences, T tokens, E d_head.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from alens.errors import RequestError
from alens.heads import Head, Heads, listed
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses
from alens.model.edits import Change as Edited
from alens.model.edits import Edit
from alens.reading.given import GivenReader, prompts_of, reader_of, settings_of, terms_of
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt, texts_of
from alens.reading.terms import Term
from alens.studies.injection.edit_effects import EditRunner
from alens.studies.injection.perplexity import Windows
from alens.studies.injection.result import Ablation, Ablations
from alens.studies.injection.settings import AblateSettings
from alens.studies.injection.typical import typical

TEXT = "text"
"""Where means are from, beside the names of lenses and caches."""


def check(lenses: Lenses, settings: AblateSettings, *, has_mean: bool) -> None:
    """Raises `RequestError` for a head that the model does not have, or for a mean ablation whose mean nothing holds;
    `has_mean` says that a text or a cache is given."""
    record = lenses.record.model
    for layer, head in settings.pairs:
        if layer not in record.layers_with_heads or not 0 <= head < record.n_heads:
            has = f"layers 0 to {record.n_layers - 1}"
            if record.attention_layers is not None:
                has = f"heads in layers {listed(record.attention_layers)}"
            raise RequestError(
                f"{record.id} has no head {layer}.{head}: it has {has}, heads 0 to {record.n_heads - 1}"
            )
    if settings.kind == "mean" and not has_mean:
        for layer, head in settings.pairs:
            if (layer, head) not in lenses.record.lenses or lenses.mean_z(layer) is None:
                raise RequestError(
                    f"a mean ablation needs the mean z of head {layer}.{head}, which {lenses.name} does not hold: name its cache "
                    "with --store, or give a text with --text"
                )
    if not 1 <= settings.top <= record.d_vocab:
        raise RequestError(f"top is {settings.top}: it must be in 1 .. {record.d_vocab}")


def ablate(
    reader: GivenReader,
    prompts: Sequence[Prompt | str],
    settings: AblateSettings,
    *,
    terms: Sequence[Term | str] = (),
    windows: Windows | None = None,
    store: Path | str | None = None,
    report: Report = silent,
) -> Ablations:
    """Take each head away alone, and then all of them. Means of a mean ablation are those of the cache `store`, else of the
    windows, else of the lenses.

    Raises `RequestError` as `check` does, and for a cache of another model.
    """
    settings, reader = settings_of(settings, AblateSettings), reader_of(reader)
    prompts, terms = texts_of(reader, prompts_of(prompts, "prompts")), terms_of(reader, terms)
    check(reader.lenses, settings, has_mean=store is not None or windows is not None)
    heads = settings.pairs
    edits, means_of = _edits(reader, heads, settings.kind, windows, store)
    together = [heads] if len(heads) > 1 else []
    groups = [*((head,) for head in heads), *together]
    runner = EditRunner(
        reader,
        prompts,
        terms,
        windows,
        layers=[layer for layer, _ in heads],
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
        means_of=means_of,
        prompts=tuple(prompts),
        terms=tuple(terms),
        clean=runner.clean,
        ablations=tuple(ablations),
    )


def _edits(
    reader: LensedModel, heads: Sequence[Head], kind: str, windows: Windows | None, store: Path | str | None
) -> tuple[dict[Head, Edit], str | None]:
    """The edit that takes each head away, and whose mean takes its place; None for zero."""
    if kind == "zero":
        zeros = {(layer, head): Edit(layer=layer, head=head, z=torch.zeros_like) for layer, head in heads}
        return zeros, None
    if store is not None:
        means, means_of = _of_cache(reader, heads, store), str(store)
    elif windows is not None:
        statistics = typical(reader.model, windows.batches, list(dict.fromkeys(layer for layer, _ in heads)))
        means, means_of = {head: statistics[head].mean_E for head in heads}, TEXT
    else:
        means, means_of = {}, reader.lenses.name
        for layer, head in heads:
            mean_1E = reader.lenses.mean_z(layer, [head])
            assert mean_1E is not None  # else `check` refuses
            means[layer, head] = mean_1E[0].to(reader.model.device)
    return {
        (layer, head): Edit(layer=layer, head=head, z=_always(means[layer, head])) for layer, head in heads
    }, means_of


def _of_cache(reader: LensedModel, heads: Sequence[Head], store: Path | str) -> dict[Head, torch.Tensor]:
    """(E,) E[z] of each head over the cache."""
    from alens.rows import moments  # these import Zarr, which few ablations need
    from alens.store.cache_reader import open_cache

    cache = open_cache(store)
    reader.lenses.check_model(cache.plan.model, str(store))
    chosen = Heads.grouped(heads)
    mean_z = moments.mean_z(cache, chosen)
    return {
        (layer, head): mean_z[layer][chosen.place(layer, head)].to(reader.model.device)
        for layer, head in chosen
    }


def _always(mean_E: torch.Tensor) -> Edited:
    """The change of a head's z to its mean, at every position."""

    def change(z_BTE: torch.Tensor) -> torch.Tensor:
        return mean_E.to(z_BTE.dtype).expand_as(z_BTE)

    return change
