"""What `alens inject` prints and draws: effects of strengths or ablations on prompts and on a text, and curves.

In: an `Injection` or `Ablations`. Out: tables and lines, and a PNG.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.lens import marks
from alens.pictures.numbers import fixed, interval, percent, perplexity, signed, significant
from alens.studies.injection.result import spread

if TYPE_CHECKING:
    from alens.cli.tables import Cell
    from alens.pictures.dose_response import ResponseAxis
    from alens.reading.terms import Term
    from alens.studies.injection.result import Ablations, CleanRun, EditEffect, Injection, NextTokenEffect

TERMS_NAMED = 5
"""Terms in the title of a picture."""


def show_injection(injection: "Injection") -> None:
    """Print what is added, and what follows on each prompt and on the text."""
    unit, whose = injection.unit, "what the head writes"
    if injection.head is None:
        whose = f"{injection.site} of the layer"
    places = "all positions" if injection.position == "all" else f"{injection.position} position"
    show(
        _terms(f"{_where(injection)}, direction of", injection.terms, injection.tokens),
        f"strength 1 adds norm {significant(unit.norm, 4)}: the root mean square norm of {whose} over {unit.rows:,} rows "
        f"of the {unit.rows_of}; added at {places} of a prompt",
    )
    if injection.says_nothing and any(curve.by == "lens" for curve in injection.curves):
        note = marks.note([(injection.layer, injection.head or 0)])
        show(f"{note}: the lens's direction is of no use")
    if injection.cosine is not None:
        show(f"cosine of the lens's direction and the unembedding's: {signed(injection.cosine)}")
    if injection.writable is not None:
        show(f"share of the unembedding's direction that the head can write: {percent(injection.writable)}")
    show("")
    for number, prompt in enumerate(injection.prompts):
        _show_prompt(injection, number, prompt)
    if injection.clean.nats is not None:
        _show_text(injection)


def _where(injection: "Injection") -> str:
    if injection.head is None:
        return f"layer {injection.layer}"
    return f"head {injection.layer}.{injection.head}"


def _show_prompt(injection: "Injection", number: int, prompt: str) -> None:
    """Effects on the token that follows one prompt, and the tokens that the extreme strengths give."""
    from alens.cli.tables import show_pieces

    def curve_cell(effect: "EditEffect") -> "Cell":
        after = effect.prompts[number]
        return f"{percent(after.probability)} ({_rank(after)})", fixed(after.kl)

    def random_cell(drawn: "list[EditEffect]") -> "Cell":
        after = [effect.prompts[number] for effect in drawn]
        p, kl = spread([one.probability for one in after]), spread([one.kl for one in after])
        return f"{percent(p.mean)} ± {percent(p.sd)}", fixed(kl.mean)

    title = f"after {prompt!r}: probability (rank) of the tokens, KL in nats"
    _show_strengths(injection, title, curve_cell, random_cell)
    show_pieces("as it is:", _top(injection.clean.prompts[number]))
    for curve in injection.curves:
        points = sorted(curve.points, key=lambda point: point.strength)
        for point in (points[0], points[-1]):
            if point.strength:
                show_pieces(f"{curve.by} {point.strength:+g}:", _top(point.change.prompts[number]))
    show("")


def _show_text(injection: "Injection") -> None:
    """What each strength costs on the text."""

    def curve_cell(effect: "EditEffect") -> "Cell":
        text = effect.text
        return "" if text is None else (signed(text.added), f"({perplexity(text.nats)})")

    def random_cell(drawn: "list[EditEffect]") -> "Cell":
        added = [effect.text.added for effect in drawn if effect.text is not None]
        return f"{signed(spread(added).mean)} ± {fixed(spread(added).sd)}" if added else ""

    title = f"nats a token more (perplexity) on the text: {_clean(injection.clean)}"
    _show_strengths(injection, title, curve_cell, random_cell)


def _show_strengths(
    injection: "Injection",
    title: str,
    curve_cell: "Callable[[EditEffect], Cell]",
    random_cell: "Callable[[list[EditEffect]], Cell]",
) -> None:
    """A line a strength: each direction, and the random ones together."""
    from alens.cli.tables import show_table

    random = [f"{len(injection.random)} random"] if injection.random else []
    show_table(
        ("strength", *(curve.by for curve in injection.curves), *random),
        [
            (
                f"{strength:g}",
                *(curve_cell(curve.points[index].change) for curve in injection.curves),
                *(random_cell(injection.random_at(index)) for _ in random),
            )
            for index, strength in enumerate(_strengths(injection))
        ],
        title=title,
    )


def show_ablations(ablations: "Ablations") -> None:
    """Print what follows on each prompt and on the text when heads are ablated."""
    from alens.cli.tables import AllPieces, show_table

    how = "zero"
    if ablations.kind == "mean":
        how = f"their mean {'over the text' if ablations.means_of == 'text' else f'as {ablations.means_of} has it'}"
    show(f"heads set to {how}, at all positions")
    if ablations.terms:
        show(_terms("watched:", ablations.terms, {}))
    show("")
    terms = ("probability (rank)",) if ablations.terms else ()
    for number, prompt in enumerate(ablations.prompts):
        effects = [("as it is", ablations.clean.prompts[number])]
        effects += [(_heads(one.heads), one.change.prompts[number]) for one in ablations.ablations]
        show_table(
            ("head", "KL", *terms, "next tokens"),
            [
                (
                    name,
                    fixed(effect.kl, 4),
                    *(f"{percent(effect.probability)} ({_rank(effect)})" for _ in terms),
                    AllPieces(_top(effect)),
                )
                for name, effect in effects
            ],
            title=f"after {prompt!r}: KL in nats",
            text=("next tokens",),
        )
    if ablations.clean.nats is None:
        return
    texts = [(one.heads, one.change.text) for one in ablations.ablations]
    show_table(
        ("head", "nats a token more", "95 %", "perplexity"),
        [
            (
                _heads(heads),
                signed(text.added, 4),
                interval(text.interval, 4, sign=True),
                perplexity(text.nats),
            )
            for heads, text in texts
            if text is not None
        ],
        title=f"the text: {_clean(ablations.clean)}",
    )


def draw(path: Path, injection: "Injection") -> None:
    """Write the curves as a PNG: probability of the tokens, mean over prompts, and the loss on the text."""
    from alens.pictures.dose_response import write

    def probability(effect: "EditEffect") -> float:
        return _mean_probability(effect.prompts)

    def nats(effect: "EditEffect") -> float:
        assert effect.text is not None
        return effect.text.nats

    clean = injection.clean
    axes = [_axis(injection, "probability of the tokens", probability, _mean_probability(clean.prompts))]
    if clean.nats is not None:
        axes.append(_axis(injection, "nats a token on the text", nats, clean.nats))
    more = ", ..." if len(injection.terms) > TERMS_NAMED else ""
    terms = ", ".join(repr(term.text) for term in injection.terms[:TERMS_NAMED]) + more
    write(
        path,
        title=f"{_where(injection)}: {terms}",
        dose="strength",
        doses=_strengths(injection),
        panels=axes,
    )


def _axis(
    injection: "Injection", title: str, response: "Callable[[EditEffect], float]", level: float
) -> "ResponseAxis":
    """The response to each direction, and the mean and spread of those to random ones."""
    from alens.pictures.dose_response import Response, ResponseAxis

    lines = [
        Response(label=curve.by, values=[response(point.change) for point in curve.points])
        for curve in injection.curves
    ]
    if injection.random:
        drawn = [
            spread([response(effect) for effect in injection.random_at(index)])
            for index in range(len(_strengths(injection)))
        ]
        lines.append(
            Response(label="random", values=[one.mean for one in drawn], spread=[one.sd for one in drawn])
        )
    return ResponseAxis(title=title, lines=lines, level=level)


def _mean_probability(effects: "Sequence[NextTokenEffect]") -> float:
    return spread([effect.probability for effect in effects]).mean


def _terms(what: str, terms: "Sequence[Term]", tokens: dict[str, list[str]]) -> str:
    named = [f"{t.text!r} (tokens {', '.join(map(repr, tokens.get(t.text, t.ids)))})" for t in terms]
    return f"{what} {', '.join(named)}"


def _strengths(injection: "Injection") -> list[float]:
    return [point.strength for point in (*injection.curves, *injection.random)[0].points]


def _heads(heads: Sequence[tuple[int, int]]) -> str:
    return f"{heads[0][0]}.{heads[0][1]}" if len(heads) == 1 else f"all {len(heads)}"


def _rank(effect: "NextTokenEffect") -> int:
    return min(term.rank for term in effect.terms)


def _clean(clean: "CleanRun") -> str:
    assert clean.nats is not None and clean.tokens is not None and clean.windows is not None
    windows = f"{clean.windows} window{'s' if clean.windows > 1 else ''}"
    return f"as it is {fixed(clean.nats)} ({perplexity(clean.nats)}), {clean.tokens:,} tokens in {windows}"


def _top(effect: "NextTokenEffect") -> list[str]:
    return [f"{one.token!r} {percent(one.probability)}" for one in effect.top]
