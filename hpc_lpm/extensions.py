"""Registries that users can extend by `module:name` or by an entry point of their own package."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from hpc_lpm.errors import InputError, closest
from hpc_lpm.user_functions import describe_raised

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """The entries of one kind by name: those that come with the toolkit, and those that users add.

    Users add an entry without touching the toolkit. Either they call it `module:name`, which is
    imported from the current directory or from anywhere else Python looks, or an installed package
    declares an entry point, which has a plain name.

    Args:
        kind: the word for one entry in messages, such as "strategy".
        group: the group of entry points, such as "hpc_lpm.strategies".
        entries: the entries that come with the toolkit.
        adapt: converts the object that `module:name` or an entry point refers to into an entry,
            given the name by which the user called it; it raises an `InputError` for an object that
            cannot be one.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        entries: Mapping[str, Entry],
        adapt: Callable[[str, object], Entry],
    ) -> None:
        self.kind = kind
        self.group = group
        self._entries = dict(entries)
        self._adapt = adapt
        self._imported: dict[str, Entry] = {}

    def names(self) -> list[str]:
        """Return the names of all entries, those of installed packages after the toolkit's own."""
        installed = (point for point in _points(self.group) if point not in self._entries)
        return [*self._entries, *installed]

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Yield every name with its entry, in the order of `names`.

        Raises:
            InputError: if an installed package's entry cannot be imported.
        """
        for name in self.names():
            yield name, self.named(name)

    def comes_with_toolkit(self, name: str) -> bool:
        """Tell if an entry is one of the toolkit's own."""
        return name in self._entries

    def is_known(self, name: str) -> bool:
        """Tell if an entry is one of `names`, or was taken from its module before."""
        return name in self._imported or name in self.names()

    def named(self, name: str) -> Entry:
        """Return the entry of that name, which is the same object on every call.

        Raises:
            InputError: if no entry has that name, or the object behind the name cannot be imported
                or used.
        """
        if name in self._entries:
            return self._entries[name]
        if name not in self._imported:
            self._imported[name] = self._adapt(name, self._found(name))
        return self._imported[name]

    def _found(self, name: str) -> object:
        point = _points(self.group).get(name)
        if point is not None:
            return self._loaded(point)
        module, colon, attribute = name.partition(":")
        if colon:
            return import_attribute(self.kind, name, module, attribute)
        accepted = self.names()
        raise InputError(
            f"{self.kind} {name!r} is unknown{closest(name, accepted)}: accepted are "
            f"{', '.join(accepted)}, and module:name for one of your own."
        )

    def _loaded(self, point: EntryPoint) -> object:
        try:
            return point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "an installed package"
            raise InputError(
                f"{self.kind} {point.name!r} of {package} cannot be imported ({error}): mend or "
                "remove that package."
            ) from error


def import_attribute(
    kind: str, text: str, module: str, attribute: str, what: str = "name"
) -> object:
    """Return the object that `module:attribute` refers to, looking in the current directory first.

    Args:
        kind: what the user asked for, such as "model".
        text: the whole text that the user typed, for messages.
        module: the module to import.
        attribute: the name to take from it.
        what: what the name should refer to, for messages.

    Raises:
        InputError: if the module is not found, raises an error or has no such name.
    """
    try:
        with _current_directory_importable():
            imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"module {module!r} of {kind} {text!r} cannot be imported ({error}): "
            f"{_how_to_find(error.name, module, attribute)}."
        ) from error
    except (Exception, SystemExit) as error:
        if module.startswith("."):
            raise InputError(
                f"module {module!r} of {kind} {text!r} is relative, accepted is one that Python "
                f"finds from here: write {_dotted(module)}:{attribute}."
            ) from error
        guard = isinstance(error, SystemExit)
        what_to_do = 'put its program under if __name__ == "__main__"' if guard else "correct it"
        raise InputError(
            f"module {module!r} of {kind} {text!r} cannot be imported, it raises "
            f"{describe_raised(error)}: {what_to_do}."
        ) from error
    if not attribute or not _has(imported, attribute):
        names = [name for name in vars(imported) if not name.startswith("_")]
        raise InputError(
            f"module {module!r} has no {what} {attribute!r}{closest(attribute, names)}: name what "
            f"is to be the {kind}."
        )
    found: object = getattr(imported, attribute)
    return found


def _has(imported: object, attribute: str) -> bool:
    """Tell if a module has an attribute; one whose own `__getattr__` raises has none."""
    try:
        return hasattr(imported, attribute)
    except Exception:
        return False


def expect_type(kind: str, name: str, found: object, accepted: type[Entry]) -> Entry:
    """Return `found`, or an instance of it if it is a class of that type.

    Raises:
        InputError: if it is neither, or cannot be made without arguments.
    """
    if isinstance(found, type) and issubclass(found, accepted):
        try:
            return found()
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{kind} {name!r} cannot be made, {describe_raised(error)}: define what it lacks, "
                "and let it be made without arguments."
            ) from error
    if isinstance(found, accepted):
        return found
    raise InputError(
        f"{kind} {name!r} is {type(found).__name__}, accepted is an instance or a subclass of "
        f"{accepted.__module__}.{accepted.__name__}."
    )


def _how_to_find(missing: str | None, module: str, attribute: str) -> str:
    """Say how to mend a module that is not found, be it the named one or one that it imports."""
    if missing is None or not f"{module}.".startswith(f"{missing}."):
        return f"install {missing}, which it imports, or correct the import"
    if module.startswith("/"):
        path = Path(module)
        return f"name a module instead of a file, {path.stem}:{attribute}, from {path.parent}"
    if _dotted(module) != module:
        return f"name a module instead of a file, {_dotted(module)}:{attribute}"
    return "name a module that Python finds from here"


def _dotted(module: str) -> str:
    """Return the name of the module that a relative path or module stands for."""
    return module.removesuffix(".py").strip("./").replace("/", ".")


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
