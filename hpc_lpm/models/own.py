"""Models of the user's own: `package.module:callable`, imported from anywhere Python looks."""

from collections.abc import Callable

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.data.identifier import Identifier, convert_options
from hpc_lpm.errors import InputError
from hpc_lpm.extensions import import_attribute
from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy


def create_own_model(identifier: Identifier, shape: DataShape) -> LayeredModel:
    """Call the user's `callable(shape, **options)`, found also in the current directory.

    It returns a `LayeredModel`, or a sequence of callables without arguments that build one layer
    each; such a chain is trained with cross entropy.

    Raises:
        InputError: if the module or callable is missing or returns something else.
    """
    factory = _import_callable(identifier)
    made = factory(shape, **convert_options(identifier, factory, fixed={}))
    if isinstance(made, LayeredModel):
        return made
    if isinstance(made, list | tuple) and made and all(callable(build) for build in made):
        layers = tuple(Layer(f"layer{number}", build) for number, build in enumerate(made))
        return LayeredModel(identifier.name, layers, cross_entropy, count_correct)
    raise InputError(
        f"model {identifier.text!r} returned {type(made).__name__}, accepted are a LayeredModel "
        "or a non-empty list of callables that build one layer each."
    )


def _import_callable(identifier: Identifier) -> Callable[..., object]:
    attribute = identifier.argument or ""
    found = import_attribute("model", identifier.text, identifier.name, attribute, "callable")
    if not callable(found):
        raise InputError(
            f"module {identifier.name!r} has no callable {attribute!r}, which is a "
            f"{type(found).__name__}: name a callable(shape, **options)."
        )
    return found
