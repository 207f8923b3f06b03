"""What the tutorials say of their examples, of choices, figures, keys and files is so."""

import json
import re
from pathlib import Path

from alens.cli.eval_table import BASELINES, FIGURES
from alens.model import models
from alens.reading.prompts import read_prompts
from alens.reading.terms import read_terms, to_tokens

from ..conftest import Run
from . import pages

TUTORIALS = pages.ROOT / "docs" / "tutorials"
EXAMPLES = TUTORIALS / "examples"


def test_the_page_on_bases_names_every_choice() -> None:
    text = (TUTORIALS / "basis.md").read_text()
    for name in ("mean", "resample", "raw", "unembedding", "principal", "random"):
        assert f"`{name}`" in text or f" {name}`" in text, name


def test_the_files_to_compare_are_pairs_that_differ_in_one_sentence() -> None:
    clean, suspect = (read_prompts(EXAMPLES / f"compare-{name}.txt") for name in ("clean", "suspect"))
    assert len(clean) == len(suspect) == len({prompt.text for prompt in clean + suspect}) / 2 == 30
    for one, other in zip(clean, suspect, strict=True):
        (first, middle, last), (same, changed, end) = (p.text.split(". ") for p in (one, other))
        assert (first, last) == (same, end) and middle != changed


def test_every_figure_and_baseline_is_defined() -> None:
    text = (pages.ROOT / "docs" / "metrics.md").read_text()
    for name, (field, _) in FIGURES.items():
        assert f"| `{name}` | `{field}` |" in text
    for name in BASELINES:
        assert f"| `{name}`" in text


def test_the_examples_to_locate_are_pairs_and_single_tokens() -> None:
    men, women = (read_prompts(EXAMPLES / f"locate-{name}.txt") for name in ("men", "women"))
    assert len(men) == len(women) == 10
    for ours, theirs in zip(men, women, strict=True):
        assert ours.text != theirs.text and ours.text.split()[-3:] == theirs.text.split()[-3:]
    tokenizer, _ = models.load_tokenizer(models.find("demo"))
    assert to_tokens(read_terms(EXAMPLES / "locate-terms.txt"), tokenizer)


def test_the_page_on_publishing_looks_before_it_uploads() -> None:
    commands = list(pages.alens_commands(TUTORIALS / "publish.md"))
    assert [words[0] for words in commands] == ["publish", "publish", "info", "read", "publish", "info", "read", "read"]  # fmt: skip
    assert "--upload" not in commands[0] and "--upload" in commands[4]


def test_the_page_on_publishing_names_every_file_of_a_bundle(
    demo_cache: Path, demo_lenses: Path, run_alens: Run
) -> None:
    words = ("publish", demo_lenses, "--repo", "me/x", "--store", demo_cache, "--json")
    text = (TUTORIALS / "publish.md").read_text()
    for file in json.loads(run_alens(*words).stdout)["files"]:
        name = file["path"]
        assert f"`{'layer-NN.safetensors' if name.startswith('layer-') else name}`" in text


def test_the_table_of_a_reading_has_every_key(demo_lenses: Path, run_alens: Run) -> None:
    page = TUTORIALS / "read.md"
    ((_, _, *words),) = [words for words in pages.alens_commands(page) if "--json" in words]
    (body,) = json.loads(run_alens("read", demo_lenses, *words).stdout)
    section = page.read_text().split("## As numbers")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    head = body["heads"][0]
    assert {*body, *head, *head["lens"][0], *head["lens_terms"][0]} <= named
