"""Printing a registry whose entries have options: the models or the data sets."""

from typing import Protocol, TypeVar

from hpc_lpm.cli.output import print_json, print_table
from hpc_lpm.extensions import Registry


class DescribedEntry(Protocol):
    """An entry that says what it is and what options it takes."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""

    def options(self) -> dict[str, object]:
        """Return the options with their defaults."""


EntryT = TypeVar("EntryT", bound=DescribedEntry)


def print_registry(registry: Registry[EntryT], title: str, *, as_json: bool) -> None:
    """Print the name, options and description of every entry, those of installed packages too.

    Raises:
        InputError: if an installed package's entry cannot be imported.
    """
    if as_json:
        print_json(
            [
                {"name": name, "description": entry.description, "options": entry.options()}
                for name, entry in registry.items()
            ]
        )
        return
    rows = [
        [
            name,
            ", ".join(f"{key}={value}" for key, value in entry.options().items()),
            entry.description,
        ]
        for name, entry in registry.items()
    ]
    rows.append(["module:callable", "its keyword parameters", "your own, also from this folder"])
    print_table(f"{title}: name,option=value,...", ["name", "options", "what it is"], rows)
