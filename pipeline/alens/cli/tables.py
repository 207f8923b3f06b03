"""Rich's console as alens uses it: a text is shown as it is, whoever wrote it.

In: tables and texts. Out: what a terminal shows, or plain lines where there is none. Rich takes `[red]` and `:smile:`
for orders, and lets escapes pass; here the first are plain text and the second are escaped. Rich is slow to import:
commands import this module when they draw.
"""

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from alens.cli.console import LossyStream
from alens.printable import printable_lines


def console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console on standard output, or on standard error; `width` is the terminal's where it is None."""
    stream = sys.stderr if stderr else sys.stdout
    drawn = Console(
        file=stream.unescaped if isinstance(stream, LossyStream) else stream,
        width=width,
        soft_wrap=soft_wrap,
        markup=False,
        emoji=False,
        highlight=False,
    )
    drawn.push_render_hook(_Escaping())
    return drawn


class _Escaping(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(one) for one in renderables]


class _Escaped:
    """What `content` renders to, without control characters of its texts; rich's own are no texts, and stay."""

    def __init__(self, content: ConsoleRenderable) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        segments: Iterable[Segment] = console.render(self._content, options)
        for text, style, control in segments:
            yield Segment(text if control else printable_lines(text), style, control)
