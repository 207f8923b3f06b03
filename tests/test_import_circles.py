"""No module of alens needs another that needs it: not while it is imported, not in a function, not for its types."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import alens

ROOT = Path(alens.__file__).parent


def imports_of_modules(root: Path) -> dict[str, set[str]]:
    """Each module of a package, with the modules of the package that it imports anywhere in its text."""
    paths = {
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= whole & paths.keys() or {node.module}
        graph[name] = (imported & paths.keys()) - {name}
    return graph


def test_modules_import_each_other_in_one_direction() -> None:
    graph = imports_of_modules(ROOT)
    assert len(graph) > 200
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules of the circle


@pytest.mark.parametrize(
    "how",
    [
        "from pkg.b import x\n",
        "def f():\n    from pkg import b\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pkg.b\n",
    ],
)
def test_a_circle_is_seen_however_it_is_hidden(tmp_path: Path, how: str) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text(how)
    (package / "b.py").write_text("from pkg.a import y\n")
    with pytest.raises(CycleError):
        TopologicalSorter(imports_of_modules(package)).prepare()
