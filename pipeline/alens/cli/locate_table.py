"""What `alens locate` prints and draws: the heads that raise the terms most, and what to know beside them.

In: a `Location`. Out: a table and lines for 80 columns, and a grid of heads.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.lens.marks import kl_reference, label, note
from alens.pictures.numbers import (
    fixed,
    interval,
    number_of,
    p_value,
    percent,
    percent_change,
    signed,
    significant,
    times,
)

if TYPE_CHECKING:
    from alens.pictures.head_grid import HeadGrid
    from alens.studies.location.result import HeadEffect, Location

TERMS_SHOWN = 2
"""Terms in a cell of the table."""
TERMS_NAMED = 4
"""Terms in the title of a heat map."""


def show_location(location: "Location", most: int) -> None:
    """Print the `most` heads that raise the terms most, and what to know beside them."""
    from alens.cli.tables import show_table

    settings = location.settings
    beside = _beside(location)
    rising = () if location.own_answers else ("terms that\nrise most",)
    pursued = settings.by == "pursuit"
    has_foils = not pursued and location.model_does is not None and location.model_does.foils
    other = "P(foil)" if has_foils else "controls" if location.controls else "random" if pursued else "mean"
    show_table(
        (
            "head" if location.on_heads else "layer",
            f"effect\n{100 * (1 - settings.alpha):g} %",
            f"p\n{settings.correction}",
            f"{_measure(location)}\n{other}",
            f"{'above 0' if location.own_answers else 'lift'}\nKL",
            *((f"{beside}\np",) if beside else ()),
            *rising,
        ),
        [_row(head, location) for head in location.heads[:most]],
        title=f"{_asked(location)} against {location.reference}"
        f"{' in pairs' if settings.paired else ''}, {location.position} position; effects by {settings.by}, {location.unit}",
        text=rising,
    )
    show(*_model(location), *_notes(location))


def head_grid(location: "Location") -> "HeadGrid":
    """The effects by which heads are ranked, in nats."""
    from alens.pictures.head_grid import HeadGrid

    settings = location.settings
    more = ", ..." if len(location.terms) > TERMS_NAMED else ""
    return HeadGrid.from_heads(
        location.heads,
        lambda head: location.ranked(head).effect,
        lambda head: head.significant,
        title=f"{', '.join(location.terms[:TERMS_NAMED])}{more}: {location.prompts} prompts against {location.reference}",
        number_title=f"effect, {location.unit}",
        centre=0.0,
        mark_title=f"p {settings.correction} <= {settings.alpha:g}",
        site=location.site,
    )


def _measure(location: "Location") -> str:
    """What is measured of the terms."""
    if location.settings.by == "pursuit":
        return "share"
    return "P(target)" if location.own_answers else "P(terms)"


def _asked(location: "Location") -> str:
    """What is asked of heads."""
    if location.own_answers:
        return f"{number_of(location.prompts, 'prompt')}, each with its own target,"
    return f"{number_of(len(location.terms), 'term')}, {number_of(location.prompts, 'prompt')}"


def _model(location: "Location") -> Iterator[str]:
    """How well the model itself does."""
    own, does = location.model, location.model_does
    if does is not None:
        how = "prefers the target to its foil" if does.foils else "has the target as its first choice"
        unit = "logits" if does.foils else "log-probability of the target"
        for group, where in ((does.prompts, "prompts"), (does.controls, "controls")):
            if group is not None:
                between = interval((group.difference_low, group.difference_high), sign=True)
                yield (
                    f"the model itself {how} on {percent(group.right)} of {where} "
                    f"({percent(group.right_low)} to {percent(group.right_high)}); {unit} {signed(group.difference)}, {between}"
                )
    if does is None or does.controls is not None or not does.foils:
        between = interval((own.low, own.high), sign=True)
        yield f"the model's own next token: effect {signed(own.effect)}, {between}, p {p_value(own.p_corrected)} (one test)"


def _beside(location: "Location") -> str | None:
    """The reading that stands beside the one that heads are ranked by: the lens, or else the unembedding."""
    if location.settings.by != "lens":
        return "lens"
    return None if location.heads[0].unembedding is None else "unembedding"


def _row(head: "HeadEffect", location: "Location") -> tuple[str, ...]:
    effect, mean_output_kl, beside = location.ranked(head), location.mean_output_kl, _beside(location)
    pursued = location.settings.by == "pursuit"
    kl = head.lens_kl if pursued else getattr(head, f"{location.settings.by}_kl")
    other = getattr(head, beside) if beside else None
    above = ">" if mean_output_kl is not None and kl > mean_output_kl else ""
    rising = [share for share in head.terms if share.probability > share.control_probability]
    has_foils = location.own_answers and len(head.terms) == 2 and not pursued
    second = head.terms[-1].probability if has_foils else effect.control_probability
    third = percent(effect.share_above) if location.own_answers else times(effect.lift)
    terms = "\n".join(
        f"{share.term} {percent_change(share.probability - share.control_probability)}"
        for share in rising[:TERMS_SHOWN]
    )
    return (
        label(head.layer, head.head, head.says_nothing) if location.on_heads else str(head.layer),
        f"{signed(effect.effect)}\n{interval((effect.low, effect.high), 2, sign=True)}",
        p_value(effect.p_corrected) + ("*" if head.significant else " "),
        f"{percent(effect.probability)}\n{percent(second)}",
        f"{third}\n{above}{fixed(kl, 2)}",
        *(() if other is None else (f"{signed(other.effect)}\n{p_value(other.p_corrected)}",)),
        *(() if location.own_answers else (terms,)),
    )


def _notes(location: "Location") -> Iterator[str]:
    from alens.statistics.permutation import FEWEST_OF_UNEQUAL_SPREAD

    settings = location.settings
    yield from location.notes
    marked = [location.ranked(head).effect for head in location.heads if head.significant]
    raised, lowered = sum(effect > 0 for effect in marked), sum(effect < 0 for effect in marked)
    targets = "targets" if location.own_answers else "terms"
    more = f", {location.more_draws:,} {'redraws' if location.controls is None else 'sign flips'}"
    yield (
        f"* significant: {raised} of {len(location.heads)} {'heads' if location.on_heads else 'layers'} raise the {targets}, "
        f"{lowered} lower them (p {settings.correction} <= {settings.alpha:g}, {location.relabellings:,} relabellings, "
        f"{'all' if location.exact else 'drawn'}{more if location.more_draws else ''})"
    )
    yield from kl_reference(location.mean_output_kl, "lens" if settings.by == "pursuit" else settings.by)
    if meaning := note((head.layer, head.head) for head in location.heads if head.says_nothing):
        yield meaning
    if not location.can_be_significant:
        yield (
            f"too few prompts: one head alone could reach p {significant(location.smallest_p)} at best; "
            f"give more prompts{'' if location.own_answers else ' and controls'}"
        )
    if location.needs_equal_spread:
        yield (
            f"fewer than {FEWEST_OF_UNEQUAL_SPREAD} of a kind: p holds only where prompts and controls spread alike; "
            "give more, or pairs"
        )
    if location.spreads_unequally:
        yield (
            f"scores of prompts spread {significant(location.spread_ratio, 2)} times as much as those of controls: "
            "p holds if they are not skewed"
        )
    if location.reference == "the mean output":
        yield (
            "no controls: compared with the model's mean output over the text of the fit; other prompts of this form "
            f"may raise the {targets} as much ({'field `control`' if location.own_answers else '--control'})"
        )
    if location.prompts_with_terms:
        prompts = location.prompts + (location.controls or 0)
        yield (
            f"{'its target' if location.own_answers else 'a term'} stands in {location.prompts_with_terms} of {prompts} prompts and controls: "
            "a head may raise it there by copying"
        )
