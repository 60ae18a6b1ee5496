"""All names of a model's parameters outside: those of the user's own module, aliases and ties."""

from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.state_names import outside_name


class ParameterNames:
    """Finds all names of a parameter outside, the usual one first.

    A tied parameter has the names of its owner and of all its copies.
    """

    def __init__(self, model: LayeredModel) -> None:
        self._model = model
        self._owner = {
            (tie.copy_layer, tie.copy_parameter): (tie.owner_layer, tie.owner_parameter)
            for tie in model.ties
        }
        self._copies: dict[tuple[int, str], list[tuple[int, str]]] = {}
        for copy in self._owner:
            self._copies.setdefault(self.owner_of(copy), []).append(copy)
        self._aliases: dict[str, list[str]] = {}
        for alias, name in model.aliases.items():
            self._aliases.setdefault(name, []).append(alias)

    def is_copy(self, layer: int, parameter: str) -> bool:
        """Tell if a parameter is a copy of another layer's."""
        return (layer, parameter) in self._owner

    def of(self, layer: int, parameter: str) -> list[str]:
        """Return the names of a parameter, given by its layer's index and its name there."""
        owner = self.owner_of((layer, parameter))
        ends = [owner, *self._copies.get(owner, ())]
        usual = [
            outside_name(self._model, index, name) or f"{self._model.layers[index].name}.{name}"
            for index, name in ends
        ]
        return list(
            dict.fromkeys(name for one in usual for name in (one, *self._aliases.get(one, ())))
        )

    def owner_of(self, end: tuple[int, str]) -> tuple[int, str]:
        """Return the owner of a tied parameter, or the parameter itself; layer and name of each."""
        while end in self._owner:
            end = self._owner[end]
        return end
