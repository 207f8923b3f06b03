"""What pages say of the code holds: arrays and plan of the store, import rules, public names, the demo."""

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import alens
from alens.store import schema
from alens.store.arrays import shard_arrays, weight_arrays
from alens.store.model_record import ModelRecord, NormRecord
from alens.store.schema import CacheSettings, CorpusFile, CorpusRecord, Plan, TokensRecord

from . import demo_card, pages

DOCS = pages.ROOT / "docs"


def plan(d_vocab: int) -> Plan:
    return Plan(
        model=ModelRecord(
            id="gpt2",
            revision=None,
            weights_sha256="",
            architecture="GPT2LMHeadModel",
            n_layers=12,
            n_heads=12,
            d_head=64,
            d_model=768,
            d_vocab=d_vocab,
            n_ctx=1024,
            head_write="exact",
            final_norm=NormRecord(kind="layer", epsilon=1e-5),
        ),
        corpus=CorpusRecord(
            id="bookcorpus",
            revision=None,
            split="train",
            text_column="text",
            document_column=None,
            row_documents=False,
            files=(),
        ),
        settings=CacheSettings(layers=(11,), exact_teacher=True),
        tokens=TokensRecord(
            sha256="", sequences=64, sequences_left_out=0, tokenizer_sha256="", end_of_text=None
        ),
    )


def test_the_store_page_has_every_array() -> None:
    """Names, axes and dtypes, with a small vocabulary and a large one, with float16 z and 8-bit z."""
    rows = re.findall(
        r"^\| `([a-z]+/[^`]*)` \| ([^|]*) \| ([^|]*) \|", (DOCS / "store-format.md").read_text(), re.MULTILINE
    )
    small, large = plan(50_257), plan(100_000)
    settings = CacheSettings(
        layers=(11,), exact_teacher=True, final_moments=True, z_dtype="int8", sites=("resid_post", "mlp_out")
    )
    normed = dataclasses.replace(small.model, head_write="normed")
    small = dataclasses.replace(small, settings=settings, model=normed)
    specs = {**shard_arrays(small), **weight_arrays(small)}
    wide = {**shard_arrays(large), **weight_arrays(large)}
    expected = set()
    for name, spec in specs.items():
        other = wide.get(name, spec).dtype
        dtypes = spec.dtype if spec.dtype == other else f"{spec.dtype} or {other}"
        if name == "sites/attn.z/11":
            dtypes = "float16 or int8"  # by z_dtype
        if name == "rows/position":
            dtypes = "uint16 or uint32"  # by seq_len
        expected.add((name.replace("/11", "/{layer:02d}"), ", ".join(spec.dimensions), dtypes))
    assert set(rows) == expected


def test_the_store_page_names_every_field_of_the_plan() -> None:
    page = (DOCS / "store-format.md").read_text()
    for part in (Plan, ModelRecord, CorpusRecord, CorpusFile, CacheSettings, TokensRecord):
        for field in dataclasses.fields(part):
            assert f"`{field.name}`" in page, f"{part.__name__}.{field.name}"
    assert f"# Store format {schema.FORMAT}\n" in page


def test_sizes_of_a_row_are_those_of_the_format() -> None:
    page = (DOCS / "first-run.md").read_text()
    for layers, label in (((11,), "one"), (None, "all 12")):
        for exact, word in ((False, "no"), (True, "yes")):
            settings = dataclasses.replace(plan(50_257).settings, layers=layers, exact_teacher=exact)
            specs = shard_arrays(dataclasses.replace(plan(50_257), settings=settings)).values()
            size = sum(spec.row_bytes for spec in specs if spec.dimensions[0] == "row")
            gigabytes = " | ".join(f"{_two_digits(size * rows / 1e9)} GB" for rows in (2_097_152, 16_777_216))
            assert f"| {label} | {word} | {size:,} | {gigabytes} |" in page


def _two_digits(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def test_the_architecture_page_has_every_import_rule() -> None:
    page = (DOCS / "architecture.md").read_text()
    settings = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())
    for contract in settings["tool"]["importlinter"]["contracts"]:
        assert contract["name"] in page


def test_the_architecture_page_has_every_room() -> None:
    page = (DOCS / "architecture.md").read_text()
    package = pages.ROOT / "pipeline" / "alens"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} | {
        path.stem for path in package.glob("*.py")
    }
    assert {name for name in rooms if f"`alens.{name}`" not in page} == {"__init__"}


def test_the_architecture_page_names_functions_that_exist() -> None:
    """In "One row's way", names such as `text.corpus.resolve` and `store.writer.ShardWriter.write`."""
    section = (DOCS / "architecture.md").read_text().split("## One row's way")[1].split("\n## ")[0]
    names = re.findall(
        r"`((?:cache|store|fit|lens|evaluation|reading|rows|randomness|model|text|statistics|machine|job|sources)\.[\w.]+)`",
        section,
    )
    names = [name for name in names if not name.endswith(".json")]
    assert len(names) > 15
    for name in names:
        module, attributes = _module_of(name)
        value: object = __import__(f"alens.{module}", fromlist=["_"])
        for attribute in attributes:
            value = getattr(value, attribute)


def _module_of(name: str) -> tuple[str, list[str]]:
    parts = name.split(".")
    package = pages.ROOT / "pipeline" / "alens"
    length = next(
        n for n in range(1, len(parts) + 1) if (package.joinpath(*parts[:n]).with_suffix(".py")).is_file()
    )
    return ".".join(parts[:length]), parts[length:]


def test_the_python_page_names_the_public_names() -> None:
    table = (DOCS / "python.md").read_text().split("\nSettings and requests are")[0]
    assert set(re.findall(r"`(\w+)`", table)) - {"alens"} == set(alens.__all__)


def python_of(page: Path) -> str:
    """All Python of a page or a notebook."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "".join(fence.text for fence in pages.fences(page) if fence.language == "python")


@pytest.mark.parametrize(
    "page",
    [page for page in pages.PAGES if page.name != "plug-ins.md"] + [DOCS / "notebooks/reading.ipynb"],
    ids=pages.name_of,
)
def test_examples_import_from_the_public_door_alone(page: Path) -> None:
    """Designs and objectives of one's own, on the page on plug-ins, derive from classes inside the package."""
    tree = ast.parse(python_of(page))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {module for module in modules if module and module.startswith("alens.")} == set()


@pytest.mark.slow
def test_the_python_examples_run(tmp_path: Path) -> None:
    """One after the other, in a process of their own: DeepSpeed leaves its process changed."""
    script = tmp_path / "examples.py"
    script.write_text(python_of(DOCS / "python.md"))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True 2048\n")
    assert "nowhere is not a cache" in done.stdout


def test_the_demo_page_has_the_numbers_of_the_bundled_model() -> None:
    page = demo_card.PAGE.read_text()
    assert page == demo_card.with_table(page), (
        "docs/demo.md is old: run .venv/bin/python tests/docs/demo_card.py"
    )


def test_every_decision_is_in_the_list() -> None:
    folder = DOCS / "decisions"
    listed = re.findall(
        r"\]\((\d{4}-[\w-]+\.md)\) \| (.*) \|$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert [name for name, _ in listed] == sorted(path.name for path in folder.glob("0*.md"))
    for name, title in listed:
        assert (folder / name).read_text().startswith(f"# {name[:4]}: {title}\n")
