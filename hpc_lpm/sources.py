"""Finds the source files of the user's own modules, and of the local modules that they import.

Modules are found as Python finds them, from the current directory first, but never imported: the
imports are read from the source. Installed packages, Python's library and this toolkit are no
sources of the user's; imports under a name that is only known at run time are not seen.
"""

import ast
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import distributions
from pathlib import Path

_TOOLKIT = Path(__file__).resolve().parent
_INSTALLED = {"site-packages", "dist-packages"}
_PYTHON = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_GROUPS = "hpc_lpm."


def module_named_in(text: str) -> str | None:
    """Return the module that `module:name` or an entry point of an installed package refers to.

    Options may follow, as in `my_models:perceptron,width=8`. Whether there is such a module does
    not matter here.
    """
    base = text.partition(",")[0]
    module, colon, name = base.partition(":")
    if not colon:
        return _installed_entries().get(base)
    dotted = all(part.isidentifier() for part in module.split("."))
    return module if dotted and name.isidentifier() else None


@cache
def _installed_entries() -> dict[str, str]:
    points = (point for installed in distributions() for point in installed.entry_points)
    return {point.name: point.module for point in points if point.group.startswith(_GROUPS)}


def source_files(module: str) -> dict[str, Path]:
    """Return the files of a module and of all local modules that it imports, by their names."""
    found: dict[str, Path] = {}
    waiting = [module]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for parent in _with_parents(name):
            path = _local_file(parent)
            if path is not None and parent not in found:
                found[parent] = path
                waiting += _imports(parent, path)
    return dict(sorted(found.items()))


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _local_file(name: str) -> Path | None:
    """Return the file of a module unless it is installed, built in or not there."""
    found = _find(name)
    if found is None or found.file is None:
        return None
    path = found.file.resolve()
    library = any(path.is_relative_to(folder) for folder in (*_PYTHON, _TOOLKIT))
    return None if library or _INSTALLED & set(path.parts) else path


@dataclass(frozen=True)
class _Found:
    """The file of a module, None if it has none, and the folders of the modules in it."""

    file: Path | None
    folders: list[str]


def _find(name: str) -> _Found | None:
    """Find a module without importing it or the packages that hold it."""
    found: _Found | None = None
    for full in _with_parents(name):
        found = _find_in(full, found.folders if found else None)
        if found is None:
            return None
    return found


def _find_in(name: str, folders: Sequence[str] | None) -> _Found | None:
    """Find a module in folders, None standing for where Python looks."""
    if folders is None:
        folders = [str(Path.cwd()), *sys.path]
    try:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, folders) if find else None
            if spec is not None and spec.origin is not None:
                file = Path(spec.origin) if spec.has_location else None
                return _Found(file, list(spec.submodule_search_locations or ()))
    except Exception:
        # Python finds a folder without a file of its own only once what holds it is imported.
        pass
    places = [str(Path(folder, name.rpartition(".")[2])) for folder in folders]
    existing = [place for place in places if Path(place).is_dir()]
    return _Found(None, existing) if existing else None


def _imports(module: str, path: Path) -> Iterator[str]:
    """Yield the full names that a source file imports, and those that may be modules in them."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # reported where it is imported
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
