"""What CONTRIBUTING.md promises of every module, held by the code itself."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import alens

ROOT = Path(alens.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
MOST_LINES = 320

CHECKOUT = Path(__file__).parents[1]
SOURCES = sorted(
    [*MODULES, *(p for name in ("tests", "benchmarks", ".ci") for p in (CHECKOUT / name).rglob("*.py"))]
)
"""All that is written in Python here."""

SAME_IN_EACH_ROOM = ("__init__", "settings", "request", "study", "result")
"""Names of modules that mean the same in every room."""

NO_FOR_NOT = re.compile(
    r"(?<!\bthere )(?<!\bThere )(?<!\bwhere )\b(?:is|are) no\b(?! (?:longer|more|less|fewer|\w+er than)\b)"
)
"""`a file that is no cache`; but `there is no cache`, `is no longer there` and `is no wider than 80` are English."""

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


# Names


def test_a_name_of_a_module_stands_once() -> None:
    """A command may be called like the module that does its work."""
    named = [path for path in MODULES if path.stem not in SAME_IN_EACH_ROOM]
    commands = Counter(path.stem for path in named if path.parent == ROOT / "cli")
    others = Counter(path.stem for path in named if path.parent != ROOT / "cli")
    assert [name for name, count in (commands + others).items() if count - min(commands[name], 1) > 1] == []


def test_a_name_of_a_class_stands_once() -> None:
    classes = Counter(
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1] == []


def names_given(path: Path) -> Iterator[tuple[int, str]]:
    """(line, name) of each variable, parameter, function and class."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and path.is_relative_to(CHECKOUT / "tests"):
            yield node.lineno, node.name  # a fixture is a variable of the tests that take it


every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))


@every_source
def test_a_variable_is_named_by_a_noun(path: Path) -> None:
    assert [(line, name) for line, name in names_given(path) if name in ("found", "of")] == []


# English


def comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Those of fields and constants too."""
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.lineno, node.value.value


def strings(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def opens_with_of(text: str) -> list[tuple[int, str]]:
    return [(line, said) for line, said in (*docstrings(text), *comments(text)) if re.match(r"Of\b", said)]


def no_for_not(text: str) -> list[tuple[int, str]]:
    lines = [(line, " ".join(said.split())) for line, said in (*strings(text), *comments(text))]
    return [(line, said) for line, said in lines if NO_FOR_NOT.search(said)]


@every_source
def test_no_docstring_or_comment_opens_with_of(path: Path) -> None:
    assert opens_with_of(path.read_text()) == []


@every_source
def test_what_is_not_something_is_not_called_no_such_thing(path: Path) -> None:
    if path != Path(__file__):
        assert no_for_not(path.read_text()) == []


@pytest.mark.parametrize(
    ("said", "is_wrong"),
    [
        ("a place that is no cache", True),
        ("files that are no shards of it", True),
        ("prompts that are\n    no pairs", True),
        ("there is no cache", False),
        ("There are no shards", False),
        ("it is no longer there", False),
        ("that is no more than 5", False),
        ("lines that are no wider than the terminal", False),
    ],
)
def test_the_rule_tells_not_from_no(said: str, is_wrong: bool) -> None:
    assert bool(no_for_not(f"text = {said!r}")) is is_wrong
