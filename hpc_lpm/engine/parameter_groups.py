"""The groups of parameters that share a weight decay, a factor on the learning rate, and a rule.

Users choose parameters by patterns of their names in the state_dict of their own module, so that a
group is the same wherever the model is cut. A tied parameter has several names: one that any of
them chooses is chosen. The optimizer `muon` updates hidden matrices by another rule than the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from torch import nn

from hpc_lpm.engine.job import Job, SingleProcess
from hpc_lpm.engine.muon import is_muon
from hpc_lpm.errors import InputError, closest
from hpc_lpm.models.hidden_matrices import hidden_matrices, weight_roles
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.parameter_names import ParameterNames
from hpc_lpm.options import OptimizerSettings

NORM_AND_BIAS = "norm-and-bias"
"""The preset of `--no-decay`: parameters of at most one dimension, and those called bias."""

_NAMED_OF_EACH_END = 3


@dataclass(frozen=True, order=True)
class Group:
    """What the parameters of a group have in common; the first of all groups is that of most.

    `hidden_matrices` tells the groups that the optimizer `muon` orthogonalises from its others.
    """

    lr_scale: float = 1.0
    decays: bool = True
    hidden_matrices: bool = False


def rule_of(group: Group, optimizer: str) -> str | None:
    """Return by whose rule an optimizer updates a group, None where it has one rule for all."""
    if not is_muon(optimizer):
        return None
    return "muon" if group.hidden_matrices else "adamw"


@dataclass(frozen=True)
class GroupedParameters:
    """The groups of one rank's parameters, and those of the whole model.

    `of` leaves out parameters of the group `Group()`. `listed` has the names of all parameters of
    the model by their group, `Group()` first, if users have asked for groups or the optimizer has
    some; the same on every rank.
    """

    of: Mapping[nn.Parameter, Group] = field(default_factory=dict)
    listed: Mapping[Group, list[str]] = field(default_factory=dict)

    def divide(self, parameters: Iterable[nn.Parameter]) -> dict[Group, list[nn.Parameter]]:
        """Return parameters by their group, groups and parameters in order of appearance."""
        divided: dict[Group, list[nn.Parameter]] = {}
        for parameter in parameters:
            divided.setdefault(self.of.get(parameter, Group()), []).append(parameter)
        return divided


ALL_ALIKE = GroupedParameters()
"""The groups of a run in which nothing tells parameters apart."""


def group_parameters(
    model: LayeredModel, layers: Mapping[int, nn.Module], settings: OptimizerSettings, job: Job
) -> GroupedParameters:
    """Find out the group of every parameter of this rank's layers (collective).

    Raises:
        InputError: on every rank, if a pattern chooses no parameter of the whole model.
    """
    by_muon = is_muon(settings.name)
    if not (settings.no_decay or settings.lr_scale or by_muon):
        return ALL_ALIKE
    matrices = _hidden_matrices(model, layers, job) if by_muon else set()
    names = ParameterNames(model)
    groups: dict[nn.Parameter, Group] = {}
    found: list[_Found] = []
    for index, layer in layers.items():
        for name, parameter in layer.named_parameters():
            chosen = _chosen(settings, names.of(index, name), parameter.dim())
            group = replace(chosen.group, hidden_matrices=(index, name) in matrices)
            groups[parameter] = group
            if not names.is_copy(index, name):
                found.append(replace(chosen, group=group))
    # The ranks of a stage's replicas, or of copies of the model, find the same.
    gathered = dict.fromkeys(one for of_rank in job.all_gather(found) for one in of_rank)
    _check_all_used(settings, list(gathered))
    listed: dict[Group, list[str]] = {Group(): []}
    for one in gathered:
        listed.setdefault(one.group, []).append(one.name)
    return GroupedParameters(
        {parameter: group for parameter, group in groups.items() if group != Group()}, listed
    )


def _hidden_matrices(
    model: LayeredModel, layers: Mapping[int, nn.Module], job: Job
) -> set[tuple[int, str]]:
    """Return the hidden matrices of the whole model (collective)."""
    own = [role for index, layer in layers.items() for role in weight_roles(model, index, layer)]
    # The ranks of a stage's replicas, or of copies of the model, find the same.
    roles = dict.fromkeys(role for of_rank in job.all_gather(own) for role in of_rank)
    return hidden_matrices(roles)


def check_patterns(model: LayeredModel, settings: OptimizerSettings) -> None:
    """Check without other ranks that every pattern chooses a parameter; builds all layers.

    Raises:
        InputError: if one does not, or a layer cannot be built.
    """
    if settings.no_decay or settings.lr_scale:
        layers = {index: model.build_layer(index, 0) for index in range(len(model.layers))}
        group_parameters(model, layers, settings, SingleProcess())


@dataclass(frozen=True)
class _Found:
    name: str
    group: Group
    used: frozenset[str]


def _chosen(settings: OptimizerSettings, names: list[str], dimensions: int) -> _Found:
    used = set()
    group = Group()
    for pattern in settings.no_decay:
        if _matches(pattern, names) or (
            pattern == NORM_AND_BIAS and (dimensions <= 1 or any(map(_is_bias, names)))
        ):
            used.add(pattern)
            group = Group(decays=False)
    for text, (pattern, factor) in zip(settings.lr_scale, settings.lr_scales, strict=True):
        if _matches(pattern, names):
            used.add(text)
            group = Group(factor, group.decays)
    return _Found(names[0], group, frozenset(used))


def _matches(pattern: str, names: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2].endswith("bias")


def _check_all_used(settings: OptimizerSettings, found: list[_Found]) -> None:
    """Refuse a pattern that chooses nothing.

    Raises:
        InputError: naming some parameters that there are.
    """
    used = {pattern for one in found for pattern in one.used}
    for option, patterns in (("no-decay", settings.no_decay), ("lr-scale", settings.lr_scale)):
        for pattern in patterns:
            if pattern in used:
                continue
            names = [one.name for one in found]
            shown = names
            if len(names) > 2 * _NAMED_OF_EACH_END:
                shown = [*names[:_NAMED_OF_EACH_END], "...", *names[-_NAMED_OF_EACH_END:]]
            raise InputError(
                f"--{option} {pattern!r} matches no parameter of the model"
                f"{closest(pattern.rpartition('=')[0] or pattern, names)}: its {len(names)} are "
                f"{', '.join(shown)}; * in a pattern stands for any text."
            )
