"""The frame of every HTML page: one file for light and dark screens that loads nothing.

In: title, body, style, script and data. Out: the text of the page. A content security policy forbids the page to fetch
anything, so what it shows cannot leave the machine.
"""

import html
import json
from typing import Any

from alens.store.result_file import MARKS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

STYLE = """\
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --ground: #ffffff; --raised: #f3f5f7; --line: #d0d7de; --accent: #0b62c4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --quiet: #9aa5b1; --ground: #0f1318; --raised: #1a2028; --line: #38414c; --accent: #6cb2ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--ground); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .5rem; }
.quiet { color: var(--quiet); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 1px; }
"""


def page(*, title: str, body: str, style: str = "", script: str = "", data: Any = None) -> str:
    """The whole page. `body`, `style` and `script` are trusted text of alens; `title` and `data` may hold anything.

    The script finds `data` as `JSON.parse(document.getElementById("data").textContent)`.
    """
    # "<" never stands in the JSON, so no text of a prompt can end the element that holds it
    blob = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    held = f'<script type="application/json" id="data">{blob}</script>\n' if data is not None else ""
    code = f"<script>\n{script}</script>\n" if script else ""
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{MARKS['.html'].decode()}\n"
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n{held}{code}</body>\n</html>\n"
    )
