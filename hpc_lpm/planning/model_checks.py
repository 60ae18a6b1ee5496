"""Whether a plan is one of the model and of the ranks that are about to train.

A plan comes from a file, or from the script that hands it over: the sentences name the file and
commands, or the functions that make a plan.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from hpc_lpm.errors import InputError
from hpc_lpm.models.fingerprint import layer_fingerprint
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.plan_checks import first_other_name, other_contents


def check_layer_names(
    plan: Plan, where: Path | None, model: LayeredModel, remedy: str | None = None
) -> None:
    """Check that a plan is one of a model, as far as that can be told without building layers.

    Args:
        plan: the plan.
        where: its file, for messages; None for a plan that a script has handed over.
        model: the model that is to be cut.
        remedy: the command that makes the plan of this model, if it is one of a file.

    Raises:
        InputError: naming the first layer that differs.
    """
    names = [layer.name for layer in model.layers]
    difference = first_other_name([layer.name for layer in plan.layers], names)
    if difference is None and plan.cuts[-1] != len(names):
        difference = f"it covers {plan.cuts[-1]} layers and the model has {len(names)}"
    if difference is not None:
        raise InputError(_of_another_model(plan, where, model.name, difference, remedy))


def other_layer(
    plan: Plan,
    where: Path | None,
    layers: Mapping[int, nn.Module],
    model: LayeredModel,
    remedy: str | None = None,
) -> str | None:
    """Return a sentence for the user if layers that have just been built are not those of a plan.

    Args:
        plan: the plan.
        where: its file, for the sentence; None for a plan that a script has handed over.
        layers: some of the model's layers, by their index.
        model: the model that is to be cut; its names are those of the plan.
        remedy: the command that makes the plan of this model, if it is one of a file.
    """
    if not plan.layers:
        return None
    for index, layer in sorted(layers.items()):
        name = model.layers[index].name
        planned = plan.layers[index].fingerprint
        if planned is not None and planned != layer_fingerprint(name, layer):
            return _of_another_model(plan, where, model.name, other_contents(index, name), remedy)
    return None


def check_ranks(plan: Plan, where: Path | None, ranks: int) -> None:
    """Check that each stage of a plan gets the same number of ranks, at least one.

    Args:
        plan: the plan.
        where: its file, for messages; None for a plan that a script has handed over.
        ranks: how many were started.

    Raises:
        InputError: saying how many ranks may be started.
    """
    stages = plan.devices
    if ranks % stages == 0:
        return
    again = f"plan {ranks} stages" if where else f"hpc_lpm.plan(profile, stages={ranks})"
    raise InputError(
        f"{_named(where)} has {stages} stages but {ranks} "
        f"{'ranks were' if ranks > 1 else 'rank was'} started: start one rank per stage "
        f"(mpirun -n {stages}), or R times as many for R replicas of every stage, or "
        f"{again}."
    )


def _of_another_model(
    plan: Plan, where: Path | None, model: str, difference: str, remedy: str | None
) -> str:
    functions = f"hpc_lpm.profile and hpc_lpm.plan(profile, stages={plan.devices})"
    made_with = functions if remedy is None else f"`{remedy}`"
    return (
        f"{_named(where)} was made for another model than {model}: {difference}: make it anew with "
        f"{made_with}."
    )


def _named(where: Path | None) -> str:
    return "the plan" if where is None else f"plan {where}"
