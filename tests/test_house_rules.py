"""What CONTRIBUTING.md promises of every module, held by the code itself."""

import ast
import re
from pathlib import Path

import pytest

import alens

ROOT = Path(alens.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
MOST_LINES = 320

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def imported(path: Path) -> set[str]:
    """The top-level packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_the_rules_are_held_against_the_whole_package() -> None:
    assert len(MODULES) > 40


@every_module
def test_a_module_opens_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@every_module
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@every_module
def test_a_module_is_named_by_its_concept(path: Path) -> None:
    assert path.stem not in ("util", "utils", "common", "helper", "helpers", "misc")


@every_module
def test_only_the_command_line_imports_click(path: Path) -> None:
    if "cli" not in path.relative_to(ROOT).parts:
        assert "click" not in imported(path)


@every_module
def test_one_module_prints(path: Path) -> None:
    """What others wrote reaches a terminal through `alens.cli.console` and `alens.cli.tables` alone."""
    name = str(path.relative_to(ROOT))
    if name in ("cli/console.py", "cli/tables.py", "demo/build.py"):
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    called = {ast.unparse(call.func) for call in calls}
    assert not called & {
        "print",
        "click.echo",
        "click.secho",
        "Console",
        "sys.stdout.write",
        "sys.stderr.write",
    }


@every_module
def test_nothing_is_pickled(path: Path) -> None:
    assert not imported(path) & {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
    text = path.read_text()
    if path == ROOT / "exchange" / "weights_only.py":  # published checkpoints are torch files
        loads = re.findall(r"torch\.load\([^)]*\)", text)
        assert len(loads) == text.count("torch.load(") and all("weights_only=True" in load for load in loads)
        text = text.replace("torch.load(", "")
    assert not re.search(r"torch\.(load|save)\(|allow_pickle=True", text)


@every_module
def test_no_scheduler_variable_is_read(path: Path) -> None:
    """fit/launch.py notices a step of several processes, refuses it, and says what each is to be told."""
    named = set(re.findall(r"\b(?:SLURM|PBS|SGE|LSB)_\w+", path.read_text()))
    refused = {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"}
    assert named <= (refused if path.parts[-2:] == ("fit", "launch.py") else set())


def test_the_source_root_holds_the_package_and_nothing_else() -> None:
    packages = {path.name for path in ROOT.parent.iterdir() if not path.name.endswith(".egg-info")}
    assert packages == {"alens"}


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in MODULES} - {ROOT}), ids=lambda folder: folder.name
)
def test_a_room_lists_its_files(folder: Path) -> None:
    """In its docstring, a line each: `prompts.py  files of prompts`."""
    listed = re.findall(
        r"^([\w.]+/?)  +\S", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "", re.M
    )
    modules = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert sorted(listed) == sorted(
        modules | {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    )
