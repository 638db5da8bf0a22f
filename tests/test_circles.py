"""No module imports itself through others: at the top, inside functions, or for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import edgead

ROOT = Path(edgead.__file__).parent
ALLOWED: set[frozenset[str]] = set()
"""Circles that stay, each with its reason beside it. There is none."""


def modules(root: Path) -> dict[str, Path]:
    """Every module below a package's folder, by name."""
    found = {}
    for path in root.rglob("*.py"):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(members) > 1:
                found.add(frozenset(members))

    for name in graph:
        if name not in order:
            visit(name)
    return found


def test_no_circle_of_imports() -> None:
    known = modules(ROOT)
    graph = {name: set(imports(path, known)) - {name} for name, path in known.items()}
    assert "edgead.runtime.stream" in graph["edgead.runtime.inspector"]  # what it must see: a whole graph
    assert circles(graph) == ALLOWED


def test_a_circle_is_found(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from shop import b\n")
    (package / "b.py").write_text("def late():\n    from shop.c import x\n")
    (package / "c.py").write_text("if TYPE_CHECKING:\n    import shop.a\n")
    (package / "d.py").write_text("import shop.a\n")
    known = modules(package)
    graph = {name: set(imports(path, known)) - {name} for name, path in known.items()}
    assert circles(graph) == {frozenset({"shop.a", "shop.b", "shop.c"})}
