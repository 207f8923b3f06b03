"""Activation engineering: add the direction of some tokens to what a head writes, and see what the model does.

In: lenses with their model, prompts, terms, a layer and head, strengths. Out: an `Injection`: for each reading
(lens, written, effect, unembedding) and strength the change of the next token after each prompt, and of the loss on a text; beside
it the same for random directions of the same norm. Section 3.3 of "Attention Lens", arXiv 2310.16270, proposes it.

Strength s adds s * u * d at the chosen positions: d is the unit direction, and u the root mean square norm of
what the head writes, over the text (or, without one, over the prompts). So strength 1 adds a vector as long as the
head's output usually is. To the text it is added at every position.
Shapes: B sequences, T tokens, E width of the site's values, D d_model.
"""

from collections.abc import Sequence

import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.job.progress import Report, silent
from alens.lens.effect_lenses import EffectLenses
from alens.lens.lenses import Lenses
from alens.model.edits import Change as Edited
from alens.model.edits import Edit
from alens.reading.given import GivenReader, prompts_of, reader_of, settings_of, terms_of
from alens.reading.head_says import NO_EFFECT_LENSES, with_effect
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt, texts_of
from alens.reading.terms import Term
from alens.store.schema import ATTN_Z
from alens.studies.injection.directions import (
    at_random,
    by_effect,
    by_lens,
    by_unembedding,
    by_written,
    within,
)
from alens.studies.injection.edit_effects import EditRunner
from alens.studies.injection.perplexity import Windows
from alens.studies.injection.result import Curve, Injection, Point, StrengthUnit
from alens.studies.injection.settings import InjectSettings
from alens.studies.injection.typical import Typical, typical


def check(
    lenses: Lenses, settings: InjectSettings, *, has_text: bool, effect: EffectLenses | None = None
) -> None:
    """Raises `RequestError` for a layer, head or reading that these lenses or their model do not have."""
    readings = settings.readings(has_effect=effect is not None)
    most = lenses.record.model.d_vocab
    if not 1 <= settings.top <= most:
        raise RequestError(f"top is {settings.top}: it must be in 1 .. {most}")
    if settings.scaling == "covariance" and not has_text:
        raise RequestError(
            "scaling by the covariance needs the head's covariance over a text: give one with --text"
        )
    lenses.layer(settings.layer)
    if lenses.record.site == ATTN_Z:
        if settings.head is None:
            raise RequestError("no head was named: these lenses read heads, say which one to add to")
        lenses.place(settings.layer, settings.head)
        if "effect" in readings and effect is None:
            raise RequestError(NO_EFFECT_LENSES)
        if "effect" in readings and effect is not None:
            with_effect(effect, Heads(((settings.layer, settings.head),)))
    elif settings.head is not None:
        raise RequestError(
            f"{lenses.name} reads {lenses.record.site}, not heads: leave the head out, and it is added to the residual stream"
        )
    elif {"written", "effect"} & set(readings):
        raise RequestError(
            f"{lenses.name} reads {lenses.record.site}: no head writes it, take --by lens or unembedding"
        )
    elif settings.within_head:
        raise RequestError(f"{lenses.name} reads {lenses.record.site}: no head bounds what can be written")


def inject(
    reader: GivenReader,
    prompts: Sequence[Prompt | str],
    terms: Sequence[Term | str],
    settings: InjectSettings,
    *,
    windows: Windows | None = None,
    report: Report = silent,
) -> Injection:
    """Run every direction at every strength: one pass over prompts and text for each.

    Raises `RequestError` for a layer, head or prompt that is not there.
    """
    settings, reader = settings_of(settings, InjectSettings), reader_of(reader)
    prompts, terms = texts_of(reader, prompts_of(prompts, "prompts")), terms_of(reader, terms)
    check(reader.lenses, settings, has_text=windows is not None, effect=reader.effect)
    _check_direction(reader, terms)
    here = _typical(reader, prompts, settings, windows)
    by_name = directions(reader, terms, settings, here)
    strengths = tuple(dict.fromkeys(settings.strength))
    total = len(by_name) * len(strengths)
    runner = EditRunner(
        reader,
        prompts,
        terms,
        windows,
        layers=[settings.layer],
        top=settings.top,
        seed=settings.seed,
        report=report,
        total=total,
    )
    curves = [
        _curve(runner, settings, strengths, name, direction_D, here.output_norm)
        for name, direction_D in by_name.items()
    ]
    num_readings = len(settings.readings(has_effect=reader.effect is not None))
    return Injection(
        layer=settings.layer,
        head=settings.head,
        says_nothing=reader.lenses.record.says_nothing(settings.layer, settings.head or 0),
        site=reader.lenses.record.site,
        scaling=settings.scaling,
        within_head=settings.within_head,
        position=settings.position,
        seed=settings.seed,
        prompts=tuple(prompts),
        terms=tuple(terms),
        tokens={term.text: [reader.text(token) for token in term.ids] for term in terms},
        unit=StrengthUnit(
            norm=here.output_norm, rows=here.rows, rows_of="prompts" if windows is None else "text"
        ),
        cosine=float(by_name["lens"] @ by_name["unembedding"]) if num_readings > 1 else None,
        writable=_writable(reader, terms, settings, here),
        clean=runner.clean,
        curves=tuple(curves[:num_readings]),
        random=tuple(curves[num_readings:]),
    )


def _check_direction(reader: LensedModel, terms: Sequence[Term]) -> None:
    if reader.no_unembedding is not None:
        raise RequestError(
            f"{reader.no_unembedding}: nothing is added to it; take lenses of the residual stream (--site resid_post)"
        )
    if not terms:
        raise RequestError("no tokens were named: say which ones the direction is for")


def _typical(
    reader: LensedModel, prompts: Sequence[str], settings: InjectSettings, windows: Windows | None
) -> Typical:
    """Typical values of the head, over the text or, without one, over the prompts."""
    ids = [reader.tokens(prompt) for prompt in prompts]
    batches = [torch.tensor([tokens]) for tokens in ids] if windows is None else windows.batches
    site = reader.lenses.record.site
    return typical(reader.model, batches, [settings.layer], site=site)[settings.layer, settings.head]


def directions(
    reader: LensedModel, terms: Sequence[Term], settings: InjectSettings, here: Typical
) -> dict[str, torch.Tensor]:
    """Unit vectors (D,) by name: the readings asked for, then `random 1` and so on."""
    model, W_O_ED = reader.model, output_matrix(reader, settings)
    by_name = {}
    for name in settings.readings(has_effect=reader.effect is not None):
        if name == "lens":
            maps = reader.lenses.layer(settings.layer).maps
            index = 0 if settings.head is None else reader.lenses.place(settings.layer, settings.head)
            maps = maps.select([index]).to(model.device)
            by_name[name] = by_lens(maps, W_O_ED, here, terms, settings.scaling)
        elif name == "written":
            assert W_O_ED is not None  # else `check` refuses
            by_name[name] = by_written(model, W_O_ED, terms)
        elif name == "effect":
            assert (
                reader.effect is not None and settings.head is not None and W_O_ED is not None
            )  # else `check` refuses
            (effect_ED,), _ = reader.effect.maps(settings.layer, [settings.head])
            by_name[name] = by_effect(model, effect_ED.to(model.device), W_O_ED, terms)
        else:
            by_name[name] = by_unembedding(model, W_O_ED if settings.within_head else None, here, terms)
    drawn = at_random(W_O_ED, model.W_U_DV.shape[0], settings.random, settings.seed, model.device)
    return by_name | {f"random {number}": drawn_D for number, drawn_D in enumerate(drawn, start=1)}


def output_matrix(reader: LensedModel, settings: InjectSettings) -> torch.Tensor | None:
    """(E, D) float32: W_O of the head; None for lenses of the residual stream."""
    if settings.head is None:
        return None
    return reader.model.W_O_LHED[settings.layer, settings.head].float()


def addition(settings: InjectSettings, added_D: torch.Tensor, position: str) -> Edit:
    """The edit that adds (D,) at `all` positions or at the `last`: to the heads' summed output, or after the layer."""

    def everywhere(value_BTD: torch.Tensor) -> torch.Tensor:
        return value_BTD + added_D

    def at_the_end(value_BTD: torch.Tensor) -> torch.Tensor:
        return torch.cat([value_BTD[:, :-1], value_BTD[:, -1:] + added_D], dim=1)

    change: Edited = everywhere if position == "all" else at_the_end
    if settings.head is None:
        return Edit(layer=settings.layer, residual=change)
    return Edit(layer=settings.layer, output=change)


def _curve(
    runner: EditRunner,
    settings: InjectSettings,
    strengths: Sequence[float],
    name: str,
    direction_D: torch.Tensor,
    unit_norm: float,
) -> Curve:
    points = []
    for strength in strengths:
        added_D = strength * unit_norm * direction_D
        edits = [[addition(settings, added_D, place)] for place in (settings.position, "all")]
        change = runner.run(*edits) if strength else runner.run([], [])  # 0 is the model as it is
        points.append(Point(strength=strength, norm=abs(strength) * unit_norm, change=change))
    return Curve(by=name, points=tuple(points))


def _writable(
    reader: LensedModel, terms: Sequence[Term], settings: InjectSettings, here: Typical
) -> float | None:
    """The share of the unembedding's direction that the head can write."""
    W_O_ED = output_matrix(reader, settings)
    if W_O_ED is None:
        return None
    whole_D = by_unembedding(reader.model, None, here, terms)
    return float(within(whole_D, W_O_ED).norm() ** 2)
