"""Every relative link of every page leads to a file, and to a heading where it names one."""

import re
from pathlib import Path

import pytest

from . import pages

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Headings as GitHub turns them into anchors."""
    headings = re.findall(r"^#+ (.*)$", pages.prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(pages.prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{pages.name_of(page)} links to {target}"
        assert file.is_relative_to(pages.ROOT), target
        assert not anchor or anchor in anchors(file), f"{pages.name_of(page)} links to {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, open_pages = set(), [pages.ROOT / "README.md"]
    while open_pages:
        page = open_pages.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in LINK.findall(pages.prose(page)):
            path = (page.parent / target.partition("#")[0]).resolve()
            open_pages += [path / "README.md" if path.is_dir() else path] if ":" not in target else []
    assert set(pages.PAGES) - seen <= {pages.ROOT / "CHANGELOG.md"}
