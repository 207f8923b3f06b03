"""Cards and pictures made of a stranger's `lens.json` show its strings, and these have no other effect."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from alens.exchange import bundle, export, lens_card
from alens.exchange.request import BundleRequest
from alens.lens.lenses import load_lenses

from .. import documents

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def theirs(demo_lenses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(demo_lenses, tmp_path_factory.mktemp("theirs") / "lenses"))


def rename(lenses: Path, text: str) -> None:
    """Change every field of `lens.json` that a card shows and that may be any string."""

    def change(body: dict[str, Any]) -> None:
        body["model"].update(id=text, revision=text, architecture=text, weights_sha256=text)
        body.update(design=text, objective=text)
        body["cache"].update(
            plan=text, fingerprint=text, corpus={"id": text, "revision": text, "split": text}
        )

    documents.edit(lenses / "lens.json", change)


def cards(lenses: Path) -> dict[str, str]:
    opened = load_lenses(lenses)
    body, _ = bundle._description(opened)
    return {
        "publish": lens_card.text(
            body, repository="me/lenses", figures=["figures/a.png"], has_cache=True, license_id="mit"
        ),
        "export": export.model_card.text(export._config(export.plan(opened))),
    }


def structure(card: str) -> Counter[str]:
    """How many elements of each kind a card has, without code spans and emphasis."""
    _, head, body = card.split("---\n", 2)
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    kinds = Counter(token.type for token in tokens)
    for token in tokens:
        kinds.update(child.type for child in token.children or ())
    harmless = ("text", "code_inline", "em_open", "em_close", "strong_open", "strong_close")
    keys = yaml.safe_load(head).keys() - {"base_model"}
    return Counter({kind: count for kind, count in kinds.items() if kind not in harmless}) + Counter(keys)


@given(TEXT)
@example("# verified\n\n<script>alert(1)</script>")
@example("x | y ` z")
@example("gpt2\nlicense: mit")
@example("a: b")
@example("[here](https://example.org) ![](https://example.org/x.png)")
@example("/home/ada/models/gpt")
def test_a_card_has_the_parts_of_alens_alone(theirs: Path, text: str) -> None:
    rename(theirs, "gpt2")
    plain = cards(theirs)
    rename(theirs, text)
    for name, card in cards(theirs).items():
        assert structure(card) == structure(plain[name]), name


@pytest.mark.parametrize("text", ["a\nb\x1b[1A$x_1$", "模型"])
def test_a_bundle_is_made_of_any_name(theirs: Path, text: str) -> None:
    """Its picture has the name as its title, even where the font lacks the letters, and its commit has it in the message."""
    rename(theirs, text)
    made = bundle.prepare(BundleRequest(lenses=theirs, repository="me/lenses"))
    assert any(file.path.endswith(".png") for file in made.files)
    assert "\n" not in made.message and "\x1b" not in made.message
