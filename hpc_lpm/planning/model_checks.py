"""Whether a plan is one of the model that is about to be trained."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from hpc_lpm.errors import InputError
from hpc_lpm.models.fingerprint import layer_fingerprint
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.plan_checks import first_other_name, other_contents


def check_layer_names(plan: Plan, where: Path, model: LayeredModel, remedy: str) -> None:
    """Check that a plan is one of a model, as far as that can be told without building layers.

    Args:
        plan: the plan.
        where: its file, for messages.
        model: the model that is to be cut.
        remedy: the command that makes the plan of this model.

    Raises:
        InputError: naming the first layer that differs.
    """
    names = [layer.name for layer in model.layers]
    difference = first_other_name([layer.name for layer in plan.layers], names)
    if difference is None and plan.cuts[-1] != len(names):
        difference = f"it covers {plan.cuts[-1]} layers and the model has {len(names)}"
    if difference is not None:
        raise InputError(_of_another_model(where, model.name, difference, remedy))


def other_layer(
    plan: Plan, where: Path, layers: Mapping[int, nn.Module], model: LayeredModel, remedy: str
) -> str | None:
    """Return a sentence for the user if layers that have just been built are not those of a plan.

    Args:
        plan: the plan.
        where: its file, for the sentence.
        layers: some of the model's layers, by their index.
        model: the model that is to be cut; its names are those of the plan.
        remedy: the command that makes the plan of this model.
    """
    if not plan.layers:
        return None
    for index, layer in sorted(layers.items()):
        name = model.layers[index].name
        planned = plan.layers[index].fingerprint
        if planned is not None and planned != layer_fingerprint(name, layer):
            return _of_another_model(where, model.name, other_contents(index, name), remedy)
    return None


def _of_another_model(where: Path, model: str, difference: str, remedy: str) -> str:
    return (
        f"plan {where} was made for another model than {model}: {difference}: make it anew with "
        f"`{remedy}`."
    )
