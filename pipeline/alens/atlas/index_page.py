"""The index of an atlas: a grid of layers and heads, coloured by a figure that the reader chooses.

In: an entry for each head, and role scores. Out: HTML. Each cell is a link, so that the grid serves without its script,
atlas_index.js, which stands beside this module.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from alens.atlas.facts import AtlasFacts
from alens.atlas.markup import escaped
from alens.atlas.result import AtlasEntry
from alens.atlas.roles import Roles
from alens.atlas.style import HEAD_STYLE, INDEX_STYLE
from alens.atlas.token_index import TOKENS_A_FILE
from alens.heads import Head, Heads
from alens.lens import marks
from alens.pictures.page import page

DIGITS = 4
"""Digits of a figure that count: no cell shows more."""

SEARCH = (
    '<section aria-labelledby="search"><h2 id="search">Which heads write a token?</h2>'
    '<p><label for="asked">Token</label> <input id="asked" type="search" autocomplete="off" autocapitalize="off" '
    'spellcheck="false"> <span class="quiet">␣ is a space, \\n a new line.</span></p>'
    '<div id="matches" role="group" aria-label="Tokens of the model with this text"></div>'
    '<div id="answer" aria-live="polite"></div></section>'
)


def to_html(entries: Sequence[AtlasEntry], heads: Heads, facts: AtlasFacts, roles: Roles) -> str:
    """The page."""
    columns = heads.columns
    by_place = {(entry.layer, entry.head): entry for entry in entries}
    top = "".join(f'<th scope="col">{head}</th>' for head in columns)
    rows = "".join(
        f'<tr><th scope="row">{layer}</th>'
        + "".join(_cell(by_place.get((layer, head))) for head in columns)
        + "</tr>"
        for layer in heads.layers
    )
    silent = any(entry.says_nothing for entry in entries)
    note = f'<p class="quiet">{marks.SIGN} {marks.SAYS_NOTHING}: {marks.MEANING}.</p>' if silent else ""
    body = (
        '<main id="alens-atlas">'
        f"<h1>Heads of {escaped(facts.model)}</h1>"
        f'<p class="quiet">{escaped(facts.about)}</p>'
        '<p id="choice"><label for="figure">Colour by</label> <select id="figure"></select></p>'
        '<p class="quiet" id="meaning"></p>'
        '<div id="legend" hidden><span id="low"></span><span id="scale"></span><span id="high"></span></div>'
        f"{SEARCH if facts.no_write is None else ''}"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Grid of layers and heads"><table id="grid">'
        f'<thead><tr><th scope="col">layer</th>{top}</tr></thead><tbody>{rows}</tbody></table></div>{note}</main>'
    )
    parts = (
        files("alens.pictures").joinpath("page_parts/ramps.js"),
        files("alens.atlas").joinpath("atlas_index.js"),
    )
    script = "".join(part.read_text(encoding="utf-8") for part in parts)
    data = {"figures": _figures(entries, roles), "tokens_a_file": TOKENS_A_FILE}
    return page(
        title=f"Heads of {facts.model}",
        body=body,
        style=HEAD_STYLE + INDEX_STYLE,
        script=script,
        data=data,
        scripts_beside=True,
    )


def _cell(entry: AtlasEntry | None) -> str:
    if entry is None:
        return "<td></td>"
    name = f"{entry.layer}.{entry.head}"
    sign = f"<b>{marks.SIGN}</b>" if entry.says_nothing else ""
    return f'<td><a class="cell" href="{entry.page}" data-head="{name}"><span>{name}{sign}</span><span class="value"></span></a></td>'


def _figures(entries: Sequence[AtlasEntry], roles: Roles) -> list[dict[str, Any]]:
    """What the grid can be coloured by, with a number or None for each head."""
    figures = [
        _figure(
            "What the lens knows",
            "KL of the mean output minus that of the lens, in nats, on held-out rows: how much of the model's output can be "
            "predicted from the head.",
            [entry.gain for entry in entries],
        ),
        _figure(
            "How much it writes",
            "Root mean square of what the head adds to a logit by itself, over rows and the vocabulary.",
            [entry.write_strength for entry in entries],
        ),
        _figure(
            "Effect",
            "Root mean square of what the model loses in a logit without the head.",
            [entry.effect for entry in entries],
        ),
    ]
    for family in dict.fromkeys(role.family for of_head in roles.values() for role in of_head):
        by_head: Mapping[Head, float] = {
            head: role.above for head, of_head in roles.items() for role in of_head if role.family == family
        }
        figures.append(
            _figure(
                family,
                f"How far the head's score for {family} stands above its control.",
                [by_head.get((entry.layer, entry.head)) for entry in entries],
            )
        )
    return [figure for figure in figures if any(value is not None for value in figure["values"])]


def _figure(title: str, meaning: str, values: Sequence[float | None]) -> dict[str, Any]:
    return {
        "title": title,
        "meaning": meaning,
        "values": [None if value is None else float(f"{value:.{DIGITS}g}") for value in values],
    }
