"""pyproject.toml, constraints.txt and CITATION.cff tell one story."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_tested_versions_are_in_the_claimed_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    tested = {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)
    }
    claimed = [Requirement(line) for line in PROJECT["dependencies"]]
    claimed += [Requirement(line) for extra in PROJECT["optional-dependencies"].values() for line in extra]
    for requirement in claimed:
        if requirement.name != "alens":
            assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), requirement


def test_every_claimed_python_may_install_it() -> None:
    claimed = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"]
    ]
    versions = [match.group(1) for match in claimed if match]
    assert versions == ["3.11", "3.12", "3.13"]
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(version) for version in versions)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["version"]) == (PROJECT["name"], PROJECT["version"])
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] and citation["message"]
    (paper,) = citation["references"]
    questions = (ROOT / "docs" / "questions.md").read_text().replace(r"{\'e}", "é")
    assert "2310.16270" in paper["url"] and "2310.16270" in questions
    assert all(author["family-names"] in questions for author in paper["authors"])
