"""The frame of every HTML page: one file for light and dark screens that loads nothing.

In: title, body, style, script and data. Out: the text of the page. A content security policy forbids the page to fetch
anything, so what it shows cannot leave the machine. Large data are compressed: numbers as text take three times the room.
"""

import base64
import gzip
import html
import json
from typing import Any

from alens.store.result_file import MARKS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

BESIDE = "'self' file:"
"""Where the scripts beside a page are, whether it is opened from disk or by a server."""

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

COMPRESSED_FROM = 2**20
"""Characters of JSON from which data are compressed; a smaller page can be read and searched as text."""

READ_DATA = """\
async function heldData() {
  const held = document.getElementById("data");
  if (held.type === "application/json") return JSON.parse(held.textContent);
  const bytes = Uint8Array.from(atob(held.textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}
"""


def page(
    *,
    title: str,
    body: str,
    style: str = "",
    script: str = "",
    data: Any = None,
    scripts_beside: bool = False,
) -> str:
    """The whole page. `body`, `style` and `script` are trusted text of alens; `title` and `data` may hold anything.

    The script finds `data` as `await heldData()`. With `scripts_beside` it may also load scripts of files beside the page.
    """
    policy = POLICY.replace("script-src", f"script-src {BESIDE}") if scripts_beside else POLICY
    held = "" if data is None else _held(data)
    code = f'<script type="module">\n{READ_DATA if held else ""}{script}</script>\n' if script else ""
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{MARKS['.html'].decode()}\n"
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n{held}{code}</body>\n</html>\n"
    )


def _held(data: Any) -> str:
    """The element that holds the data."""
    # "<" never stands in the JSON, so no text of a prompt can end the element that holds it
    blob = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    kind = "json"
    if len(blob) >= COMPRESSED_FROM:
        kind, blob = "gzip", base64.b64encode(gzip.compress(blob.encode(), 6, mtime=0)).decode()
    return f'<script type="application/{kind}" id="data">{blob}</script>\n'
