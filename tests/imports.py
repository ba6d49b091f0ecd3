"""The imports of a source tree, and the rules of its layers. Used by test_structure.py on ours and on planted faults."""

from __future__ import annotations

import ast
from pathlib import Path

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",), ("cli",), ("commands",), ("learn",), ("api", "demo", "bench", "doctor"), ("serve",), ("feedback",), ("stages",),
    ("report",), ("train",), ("evaluation",), ("rewards",), ("annotators",), ("interop",), ("data",), ("chat",),
    ("inference",), ("run",), ("model",), ("optim", "tokenizer", "losses"), ("config",), ("instructions", "identity"), ("hamlet",),
    ("files", "console", "runtime"), ("environment",),
)  # fmt: skip
"""Packages and files of the source tree, from the top: each may import only what stands on a line below its own."""

RANK = {name: rank for rank, names in enumerate(reversed(LAYERS)) for name in names}


def module_name(path: Path, package: Path) -> str:
    """The dotted name of a file below ``package``, without the package's own."""
    return ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")


def modules_of(package: Path) -> dict[str, Path]:
    """Every module of a source tree by its dotted name; the top ``__init__`` is left out."""
    return {name: path for path in sorted(package.rglob("*.py")) if (name := module_name(path, package))}


def imports_of(path: Path, package: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of the tree that a file imports anywhere in it, in functions and for type checking too.

    `from package import module` counts as an import of the module, and relative imports are resolved.
    """
    top, here = package.name, module_name(path, package).split(".")
    folder = here if path.name == "__init__.py" else here[:-1]
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.removeprefix(f"{top}.") for alias in node.names if alias.name.startswith(f"{top}.")}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = [*folder[: len(folder) - node.level + 1], *(node.module or "").split(".")]
            elif node.module == top or (node.module or "").startswith(f"{top}."):
                base = (node.module or "").split(".")[1:]
            else:
                continue
            module = ".".join(part for part in base if part)
            names = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            submodules = names & modules.keys()
            imported |= submodules | ({module} if module and len(submodules) < len(names) else set())
    return imported


def layer_faults(package: Path) -> list[str]:
    """A sentence for each import that points up or sideways between layers, and for each file that no layer names."""
    modules = modules_of(package)
    faults = []
    for name, path in modules.items():
        here = name.split(".")[0]
        if here not in RANK:
            faults.append(f"{name} stands in no layer")
            continue
        for imported in imports_of(path, package, modules):
            there = imported.split(".")[0]
            if there == here:
                continue
            if there not in RANK:
                faults.append(f"{name} imports {imported}, which stands in no layer")
            elif RANK[there] > RANK[here]:
                faults.append(f"{name} imports {imported}, upwards")
            elif RANK[there] == RANK[here]:
                faults.append(f"{name} imports {imported}, sideways")
    return sorted(faults)


def import_circles(package: Path) -> list[list[str]]:
    """Groups of modules that import each other, directly or around (strongly connected components, Tarjan 1972).

    A package's ``__init__`` that gathers names from its own files is no circle with them.
    """
    modules = modules_of(package)
    graph = {
        name: {i for i in imports_of(path, package, modules) if i in modules and not name.startswith(f"{i}.")}
        for name, path in modules.items()
    }
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for there in graph[name]:
            if there not in index:
                visit(there)
                low[name] = min(low[name], low[there])
            elif there in stack:
                low[name] = min(low[name], index[there])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                circles.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return sorted(circles)
