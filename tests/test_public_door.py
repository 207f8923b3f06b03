"""The public door: each name documented and known to type checkers, nothing heavy before it is asked for."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import alens

HEAVY = (
    "torch", "numpy", "zarr", "deepspeed", "transformers", "transformer_lens", "datasets", "safetensors",
    "click", "rich",
)  # fmt: skip


@pytest.mark.parametrize("name", alens.__all__)
def test_every_name_loads_and_says_what_it_is(name: str) -> None:
    value = getattr(alens, name)
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")
    assert (value.__module__, value.__name__) == (alens._HOME[name], name)


def test_dir_shows_the_public_names() -> None:
    assert dir(alens) == sorted(alens.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'alens' has no attribute 'cash'"):
        alens.cash  # noqa: B018 - looking it up is the test


def test_type_checkers_read_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(alens.__file__).read_text())
    (block, _) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    assert {alias.name: node.module for node in imports for alias in node.names} == alens._HOME


@pytest.mark.slow
def test_mypy_knows_every_name_and_no_other(tmp_path: Path) -> None:
    names = ", ".join(alens.__all__)
    script = tmp_path / "script.py"
    script.write_text(f"from alens import {names}\nCacheSettings(seq_len='many')\nfrom alens import cash\n")
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), str(script)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.findall(r"script\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE) == [
        ("2", "arg-type"),
        ("3", "attr-defined"),
    ], done.stdout + done.stderr


def loaded_after(code: str) -> set[str]:
    """The heavy modules in a new interpreter after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split()) & set(HEAVY)


def test_importing_alens_loads_nothing_heavy() -> None:
    assert loaded_after("import alens") == set()


def test_the_command_line_loads_click_alone_before_a_command_runs() -> None:
    assert loaded_after("import alens.cli") == {"click"}
