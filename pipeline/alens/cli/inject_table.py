"""What `alens inject` found, as tables for a terminal and as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alens.lens import marks
from alens.studies.injection.result import spread

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from alens.reading.terms import Term
    from alens.studies.injection.result import Ablations, CleanRun, Injection, NextTokenEffect, Point


def show_injection(found: "Injection") -> None:
    """Print the tables."""
    console = _console()
    where = f"layer {found.layer}" if found.head is None else f"head {found.layer}.{found.head}"
    console.print(_terms(f"{where}, direction of", found.terms, found.tokens))
    whose = f"{found.site} of the layer" if found.head is None else "what the head writes"
    console.print(
        f"strength 1 adds norm {found.unit.norm:.4g}: the root mean square norm of {whose} over {found.unit.rows:,} rows "
        f"of the {found.unit.rows_of}; added at {found.position} position{'s' if found.position == 'all' else ''} of a prompt"
    )
    if found.says_nothing and any(curve.by == "lens" for curve in found.curves):
        console.print(f"{marks.note([(found.layer, found.head or 0)])}: the lens's direction is of no use")
    if found.cosine is not None:
        console.print(f"cosine of the lens's direction and the unembedding's: {found.cosine:+.3f}")
    if found.writable is not None:
        console.print(
            f"share of the unembedding's direction that the head can write: {100 * found.writable:.0f}%"
        )
    for number, prompt in enumerate(found.prompts):
        _show_prompt(console, found, number, prompt)
    if found.clean.nats is not None:
        _show_text(console, found)


def _show_prompt(console: "Console", found: "Injection", number: int, prompt: str) -> None:
    table = _table(title=f"after {prompt!r}: probability (rank) of the tokens, KL in nats")
    table.add_column("strength", justify="right")
    for curve in found.curves:
        table.add_column(curve.by, justify="right")
    if found.random:
        table.add_column(f"{len(found.random)} random", justify="right")
    for at, strength in enumerate(_strengths(found)):
        effects = [curve.points[at].change.prompts[number] for curve in found.curves]
        row = [f"{_share(e.probability)} ({_rank(e)}) {e.kl:.3f}" for e in effects]
        if found.random:
            drawn = [change.prompts[number] for change in found.random_at(at)]
            p, kl = spread([e.probability for e in drawn]), spread([e.kl for e in drawn])
            row.append(f"{_share(p.mean, 2)} ± {_share(p.sd, 2)} {kl.mean:.2f}")
        table.add_row(f"{strength:g}", *row)
    console.print(table)
    console.print(f"as it is: {_top(found.clean.prompts[number])}")
    for curve in found.curves:
        for point in (min(curve.points, key=_strength), max(curve.points, key=_strength)):
            if point.strength:
                console.print(f"{curve.by} {point.strength:+g}: {_top(point.change.prompts[number])}")


def _show_text(console: "Console", found: "Injection") -> None:
    table = _table(title=f"nats a token more (perplexity) on the text: {_clean(found.clean)}")
    table.add_column("strength", justify="right")
    for curve in found.curves:
        table.add_column(curve.by, justify="right")
    if found.random:
        table.add_column(f"{len(found.random)} random", justify="right")
    for at, strength in enumerate(_strengths(found)):
        texts = [curve.points[at].change.text for curve in found.curves]
        row = [f"{t.added:+.3f} ({_perplexity(t.nats)})" for t in texts if t is not None]
        drawn = [change.text.added for change in found.random_at(at) if change.text is not None]
        if drawn:
            row.append(f"{spread(drawn).mean:+.3f} ± {spread(drawn).sd:.3f}")
        table.add_row(f"{strength:g}", *row)
    console.print(table)


def show_ablations(found: "Ablations") -> None:
    """Print the tables."""
    console = _console()
    how = "zero" if found.kind == "zero" else "their mean over the text"
    console.print(f"heads set to {how}, at all positions")
    if found.terms:
        console.print(_terms("watched:", found.terms, {}))
    for number, prompt in enumerate(found.prompts):
        table = _table(title=f"after {prompt!r}: KL in nats")
        table.add_column("head", justify="right")
        table.add_column("KL", justify="right")
        if found.terms:
            table.add_column("probability (rank)", justify="right")
        table.add_column("next tokens")
        clean = found.clean.prompts[number]
        rows = [("as it is", clean)]
        rows += [(_heads(a.heads), a.change.prompts[number]) for a in found.ablations]
        for name, effect in rows:
            terms = [f"{_share(effect.probability)} ({_rank(effect)})"] if found.terms else []
            table.add_row(name, f"{effect.kl:.4f}", *terms, _top(effect))
        console.print(table)
    if found.clean.nats is None:
        return
    table = _table(title=f"the text: {_clean(found.clean)}")
    for name in ("head", "nats a token more", "95 %", "perplexity"):
        table.add_column(name, justify="right")
    for ablation in found.ablations:
        if (text := ablation.change.text) is not None:
            interval = "" if text.interval is None else f"{text.interval[0]:+.4f} to {text.interval[1]:+.4f}"
            table.add_row(_heads(ablation.heads), f"{text.added:+.4f}", interval, _perplexity(text.nats))
    console.print(table)


def draw(path: Path, found: "Injection") -> None:
    """Write the curves as a PNG: probability of the tokens, mean over prompts, and the loss on the text."""
    from alens.pictures.dose_response import Response, ResponseAxis, write

    def mean_probability(effects: "Sequence[NextTokenEffect]") -> float:
        return spread([effect.probability for effect in effects]).mean

    lines = [
        Response(label=curve.by, values=[mean_probability(point.change.prompts) for point in curve.points])
        for curve in found.curves
    ]
    doses = _strengths(found)
    if found.random:
        drawn = [
            spread([mean_probability(change.prompts) for change in found.random_at(at)])
            for at in range(len(doses))
        ]
        lines.append(Response(label="random", values=[d.mean for d in drawn], spread=[d.sd for d in drawn]))
    at_zero = mean_probability(found.clean.prompts)
    panels = [ResponseAxis(title="probability of the tokens", lines=lines, level=at_zero)]
    if found.clean.nats is not None:
        texts = [
            Response(label=c.by, values=[p.change.text.nats for p in c.points if p.change.text])
            for c in found.curves
        ]
        if found.random:
            losses = [
                spread([c.text.nats for c in found.random_at(at) if c.text]) for at in range(len(doses))
            ]
            texts.append(
                Response(label="random", values=[d.mean for d in losses], spread=[d.sd for d in losses])
            )
        panels.append(ResponseAxis(title="nats a token on the text", lines=texts, level=found.clean.nats))
    where = f"layer {found.layer}" if found.head is None else f"head {found.layer}.{found.head}"
    terms = ", ".join(repr(term.text) for term in found.terms[:5]) + (", ..." if len(found.terms) > 5 else "")
    write(path, title=f"{where}: {terms}", dose="strength", doses=doses, panels=panels)


def _console() -> "Console":
    from alens.cli import tables

    return tables.console(soft_wrap=True)


def _table(title: str) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    return Table(title=title, box=SIMPLE, title_justify="left")


def _terms(what: str, terms: "Sequence[Term]", tokens: dict[str, list[str]]) -> str:
    named = [f"{t.text!r} (tokens {', '.join(map(repr, tokens.get(t.text, t.ids)))})" for t in terms]
    return f"{what} {', '.join(named)}"


def _strengths(found: "Injection") -> list[float]:
    return [point.strength for point in (*found.curves, *found.random)[0].points]


def _strength(point: "Point") -> float:
    return point.strength


def _heads(heads: Sequence[tuple[int, int]]) -> str:
    return f"{heads[0][0]}.{heads[0][1]}" if len(heads) == 1 else f"all {len(heads)}"


def _rank(effect: "NextTokenEffect") -> int:
    return min(term.rank for term in effect.terms)


def _share(probability: float, digits: int = 3) -> str:
    return "<0.001%" if 0 < probability < 1e-5 else f"{100 * probability:.{digits}g}%"


def _perplexity(nats: float) -> str:
    return f"{math.exp(nats):.4g}"


def _clean(clean: "CleanRun") -> str:
    assert clean.nats is not None and clean.tokens is not None and clean.windows is not None
    return (
        f"as it is {clean.nats:.3f} ({_perplexity(clean.nats)}), {clean.tokens:,} tokens in {clean.windows} window"
        f"{'s' if clean.windows > 1 else ''}"
    )


def _top(effect: "NextTokenEffect") -> str:
    return ", ".join(f"{next_.token!r} {100 * next_.probability:.1f}%" for next_ in effect.top)
