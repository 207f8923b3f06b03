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


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_files_of_the_code_that_a_page_names_are_there(page: Path) -> None:
    """By a path with a folder, such as `fit/trainer.py`; files of the published code are not here."""
    homes = [pages.ROOT / part for part in ("", "pipeline", "pipeline/alens", "benchmarks")]
    for name in set(re.findall(r"`((?:[\w.-]+/)+[\w-]+\.py)\b", pages.prose(page))):
        if re.match(r"attention_lense?/|demos/", name) or page.name == "CHANGELOG.md":
            continue
        assert any((home / name).is_file() for home in homes), name


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
