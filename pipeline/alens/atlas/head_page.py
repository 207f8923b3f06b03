"""The page of one head in an atlas.

In: an `AtlasHead`, its roles and the heads that write alike. Out: HTML without a script; links to other heads, and from each
token to the heads that write it.
"""

import math
from collections.abc import Callable, Sequence

from alens.atlas.atlas_folder import INDEX, head_file
from alens.atlas.atlas_head import AtlasHead, Role, RowGroup, ShownRow, TokenValues
from alens.atlas.facts import AtlasFacts
from alens.atlas.listed_tokens import TokenShare
from alens.atlas.markup import escaped, running, table, visible, word
from alens.atlas.style import HEAD_STYLE
from alens.heads import Head, Heads
from alens.lens import marks
from alens.pictures.numbers import fixed, interval, percent, signed, times
from alens.pictures.page import page

UP = f"../{INDEX}"
MOST_ALIKE, LEAST_ALIKE = 6, 3

NAMES = {
    "lens": "lens",
    "mean-output": "mean output",
    "unembedding": "unembedding",
    "written": "written",
    "scaled-write": "scaled write",
    "effect": "effect lens",
}
"""Readings as pages name them, in order."""

Text = Callable[[int], str]


def to_html(
    head: AtlasHead,
    heads: Heads,
    facts: AtlasFacts,
    *,
    roles: Sequence[Role],
    alike: Sequence[tuple[Head, float]] | None,
    token: Text,
) -> str:
    """The page; `token` gives the text of a token, `alike` all other heads, the most alike first."""
    name = f"{head.layer}.{head.head}"
    parts = [
        _navigation(head, heads),
        f"<h1>Head {name}</h1>",
        f'<p class="quiet">{escaped(facts.about)}</p>',
    ]
    if head.says_nothing:
        parts.append(f"<p><strong>Its lens {marks.SAYS_NOTHING}</strong>: {marks.MEANING}.</p>")
    parts.append(f'<div class="columns">{_figures(head)}{_roles(roles)}{_alike(alike)}</div>')
    parts.append(_lists(head, token, facts))
    parts.append(
        _rows(
            "Where it writes most",
            "Rows by how much the head adds to the logits: the standard deviation over the vocabulary, in logits.",
            head.written_rows,
            token,
            "logits",
        )
    )
    parts.append(
        _rows(
            "Where its lens says most",
            "Rows by how far the lens's reading is from the model's mean output: KL in nats.",
            head.lens_rows,
            token,
            "nats",
        )
    )
    body = f'<main id="alens-atlas-head">{"".join(parts)}</main>'
    return page(title=f"Head {name} of {facts.model}", body=body, style=HEAD_STYLE)


def _navigation(head: AtlasHead, heads: Heads) -> str:
    order = list(heads)
    at = order.index(head.name)
    links = [f'<a href="{UP}">All heads</a>']
    for title, place in (("Previous", at - 1), ("Next", at + 1)):
        if 0 <= place < len(order):
            other = order[place]
            links.append(f'<a href="../{head_file(other)}">{title}: {other[0]}.{other[1]}</a>')
    return f'<nav aria-label="Atlas">{"".join(links)}</nav>'


def _figures(head: AtlasHead) -> str:
    judged = head.judged.readings
    order = [*(name for name in NAMES if name in judged), *(name for name in judged if name not in NAMES)]
    rows = [
        [
            escaped(NAMES.get(name, name)),
            f"{fixed(one.kl)}<br><small>{interval(one.kl_interval)}</small>",
            ""
            if one.gain is None
            else f"{signed(one.gain)}<br><small>{interval(one.gain_interval, sign=True)}</small>",
            percent(one.top1_agreement),
        ]
        for name, one in ((name, judged[name]) for name in order)
    ]
    parts = [table(["reading", "KL, nats", "lens is better by", "same first token"], rows)]
    if head.judged.effect is not None:
        causes = [
            [
                escaped(NAMES.get(name, name)),
                *(signed(value, 2) for value in judged[name].causes[:2]),
                percent(judged[name].causes[2]),
            ]
            for name in order
            if any(value is not None for value in judged[name].causes)
        ]
        size = fixed(head.judged.effect)
        parts.append(
            table(
                ["reading", "correlation", "explained", "same sign"],
                causes,
                caption=f"Beside what the model loses without the head ({size} logits, root mean square)",
            )
        )
    return f"<section><h2>How well it is read</h2>{''.join(parts)}</section>"


def _roles(roles: Sequence[Role]) -> str:
    if not roles:
        return ""
    rows = [
        [escaped(role.family), fixed(role.score), fixed(role.control), f"{role.rank} of {role.heads}"]
        for role in sorted(roles, key=lambda one: one.rank)
    ]
    return f"<section><h2>What it does</h2>{table(['family', 'score', 'control', 'rank'], rows)}</section>"


def _alike(alike: Sequence[tuple[Head, float]] | None) -> str:
    if not alike:
        return ""
    ends = (("most alike", alike[:MOST_ALIKE]), ("most opposed", alike[: -LEAST_ALIKE - 1 : -1]))
    lists = "".join(
        f"<li><strong>{title}</strong>: {', '.join(_head_link(one, value) for one, value in some)}</li>"
        for title, some in ends
    )
    return (
        "<section><h2>Heads that write alike</h2>"
        '<p class="quiet">Correlation of what two heads write, over rows and the vocabulary.</p>'
        f'<ul class="plain">{lists}</ul></section>'
    )


def _head_link(head: Head, value: float) -> str:
    return f'<a href="../{head_file(head)}">{head[0]}.{head[1]}</a> <span class="quiet">{signed(value, 2)}</span>'


def _lists(head: AtlasHead, token: Text, facts: AtlasFacts) -> str:
    lists = []
    if head.raised is not None and head.lowered is not None:
        for title, tokens in (("Raised most", head.raised), ("Lowered most", head.lowered)):
            lists.append(_shares(title, "by", tokens, token, lambda value: signed(value, 2)))
    lists.append(_shares("By its lens", "lift", head.listed, token, lambda value: times(math.exp(value))))
    return (
        '<section><h2>Its tokens over the cache</h2><p class="quiet">Tokens by how often they are among the ten '
        f"that the head raises, lowers or lists most in a row, weighed by the square of how much, over {facts.rows:,} rows.</p>"
        f'<div class="lists">{"".join(lists)}</div></section>'
    )


def _shares(
    title: str, unit: str, tokens: Sequence[TokenShare], token: Text, number: Callable[[float], str]
) -> str:
    rows = [[word(token(one.id), one.id, UP), percent(one.share), number(one.mean)] for one in tokens]
    return table(["token", "rows", unit], rows, caption=title, kind="tokens")


def _rows(title: str, meaning: str, groups: Sequence[RowGroup], token: Text, unit: str) -> str:
    if not groups:
        return ""
    shown = "".join(
        f"<h3>{group.title.capitalize()}</h3><ol>{''.join(_row(row, token, unit) for row in group.rows)}</ol>"
        for group in groups
    )
    return f'<section class="rows"><h2>{title}</h2><p class="quiet">{meaning}</p>{shown}</section>'


def _row(row: ShownRow, token: Text, unit: str) -> str:
    next_token = "" if row.next_token is None else row.next_token
    space = " " if row.token.startswith(" ") else ""
    text = (
        f"{running(row.before)}{space}<mark>{running(row.token.removeprefix(' ')) or '␣'}</mark>"
        f'<span class="after">{running(row.after)}</span>'
    )
    lists = [
        _words("raises", row.raised, token, lambda value: signed(value, 2)),
        _words("lowers", row.lowered, token, lambda value: signed(value, 2)),
        _words("lens", row.listed, token, lambda value: times(math.exp(value))),
    ]
    said = "" if row.next_token is None else f"next: {_quoted(next_token)}, "
    return (
        f'<li><p class="text">{text}</p><p class="quiet">{fixed(row.strength, 2)} {unit}; {said}'
        f"the model says {_quoted(row.model_token)}</p><dl>{''.join(lists)}</dl></li>"
    )


def _quoted(text: str) -> str:
    return f'<span class="word">{escaped(visible(text))}</span>'


def _words(title: str, tokens: TokenValues, token: Text, number: Callable[[float], str]) -> str:
    if not tokens:
        return ""
    words = " ".join(
        f'<span class="pair">{word(token(one), one, UP)} <small>{number(value)}</small></span>'
        for one, value in tokens
    )
    return f"<div><dt>{title}</dt><dd>{words}</dd></div>"
