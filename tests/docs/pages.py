"""The pages of the project, and what tests take from them: fenced blocks, commands, links."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "cache_jobs/*.md", "train_jobs/*.md")
    for path in ROOT.glob(pattern)
)


class Fence(NamedTuple):
    """A fenced block: the word after the opening fence, and its lines."""

    language: str
    text: str


def name_of(page: Path) -> str:
    """As the tests show it."""
    return str(page.relative_to(ROOT))


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    return [
        Fence(*block)
        for block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def alens_commands(page: Path) -> Iterator[list[str]]:
    """Arguments of every `alens` command line in a page's fenced blocks; launchers and redirections left out."""
    for fence in fences(page):
        if fence.language in ("", "bash", "sh"):
            for line in fence.text.replace("\\\n", " ").splitlines():
                arguments = _arguments(line.removeprefix("$ "))
                if arguments is not None:
                    yield arguments


def _arguments(line: str) -> list[str] | None:
    if not re.match(r"(alens|torchrun) ", line) or "[OPTIONS]" in line:
        return None
    words = shlex.split(line.partition(" > ")[0], comments=True)
    return words[words.index("alens") + 1 :]
