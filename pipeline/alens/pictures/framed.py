"""A page inside another one, as a notebook shows it: a frame of its own, so that several do not clash.

In: a whole HTML page. Out: an element for the output of a cell. The page runs apart: it sees neither the notebook nor
other frames, and loads nothing, as its content security policy says.
"""

import html

HEIGHT_PX = 720


def framed(page: str, title: str) -> str:
    """`page` in a frame; `title` is what a screen reader says of it."""
    return (
        f'<iframe title="{html.escape(title)}" sandbox="allow-scripts" '
        f'style="width:100%;height:{HEIGHT_PX}px;border:1px solid #8888;border-radius:4px" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )
