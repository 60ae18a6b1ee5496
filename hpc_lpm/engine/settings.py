"""The settings of one run: those that all strategies share, and those that its own declares."""

import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from hpc_lpm.documents import parse_json
from hpc_lpm.engine.strategies.registry import DEFAULT_STRATEGY, STRATEGIES, strategy_named
from hpc_lpm.errors import InputError, closest
from hpc_lpm.file_kinds import mistaken_for
from hpc_lpm.files import read_text, unreadable
from hpc_lpm.options import (
    MAX_SEED,
    RUN,
    CommandOption,
    DescribedField,
    RunOptions,
    StrategyOptions,
    described_fields,
    flatten_settings,
    option_name,
)
from hpc_lpm.typed_values import refusal


class TrainSettings(RunOptions):
    """The settings of one run; `own` holds the options that its strategy declares for itself.

    In a document (a settings file or a result) these options stand beside the shared ones, under
    their plain names.
    """

    model: Annotated[
        str,
        Field(description="a name of `hpc-lpm models`, or module:callable"),
        CommandOption(RUN, metavar="MODEL"),
    ]
    dataset: Annotated[
        str,
        Field(description="a name of `hpc-lpm datasets`, or module:callable"),
        CommandOption(RUN, metavar="DATASET"),
    ]
    strategy: Annotated[
        str,
        Field(description="a name of `hpc-lpm strategies`, or module:name"),
        CommandOption(RUN, metavar="NAME"),
    ] = DEFAULT_STRATEGY
    plan: Annotated[
        Path | None,
        Field(description="cuts into stages, made by `hpc-lpm plan`"),
        CommandOption(RUN, metavar="FILE", computes=False, in_results=False),
    ] = None
    seed: Annotated[
        int,
        Field(ge=0, le=MAX_SEED, description="seed of weights, order and dropout"),
        CommandOption(RUN, metavar="N"),
    ] = 0
    own: SerializeAsAny[StrategyOptions] = StrategyOptions()

    @model_validator(mode="before")
    @classmethod
    def _own_options_apart(cls, document: Any) -> Any:
        if not isinstance(document, Mapping) or "own" in document:
            return document
        strategy = strategy_named(str(document.get("strategy", DEFAULT_STRATEGY)))
        own = {name: document[name] for name in strategy.options.model_fields if name in document}
        shared = {name: value for name, value in document.items() if name not in own}
        return {**shared, "own": strategy.options.model_validate(own)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch size {self.batch_size} is not divisible by "
                f"{self.micro_batches} micro-batches"
            )
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of epochs and steps is needed")
        if any(b <= a for a, b in pairwise(self.drain_at)):
            raise ValueError(f"drain at must ascend, found {list(self.drain_at)}")
        return self

    @model_serializer(mode="wrap")
    def _flat(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialise(self)
        own = document.pop("own")
        chosen_later = self.own.left_to_the_run
        own = {name: value for name, value in own.items() if name not in chosen_later}
        return {**document, **own}

    def with_own(self, **changes: object) -> Self:
        """Return the same settings with other values of the strategy's own options."""
        return self.model_copy(update={"own": self.own.model_copy(update=changes)})

    def remaking_commands(self, stages: int) -> str:
        """Return the commands that make this run's plan anew, of its own model, in one line."""
        profile = ["hpc-lpm", "profile", self.model, "--dataset", self.dataset]
        profile += ["--micro-batch", str(self.micro_batch_size)]
        profile += ["--data-dir", str(self.data_dir)] if self.data_dir else []
        profile += ["--loss", self.loss] if self.loss else []
        plan = ["hpc-lpm", "plan", "profile.json", "--stages", str(stages)]
        plan += ["--out", str(self.plan or "plan.json")]
        return f"{shlex.join([*profile, '--out', 'profile.json'])} && {shlex.join(plan)}"


def checked_settings(**values: object) -> TrainSettings:
    """Validate the values of settings and return the settings.

    Raises:
        InputError: naming the first option that is wrong, and what is accepted.
    """
    refuse_unknown_options(values)
    try:
        return TrainSettings.model_validate(values)
    except ValidationError as error:
        raise InputError(
            f"train: {settings_complaint(error, 'change the option and run again')}."
        ) from None


def settings_complaint(error: ValidationError, otherwise: str) -> str:
    """Describe the first setting that is wrong, and how to mend it."""
    first = error.errors()[0]
    if first["type"] == "value_error":
        # An error that concerns several options names them in its own message.
        return f"{first['msg'].removeprefix('Value error, ')}: {otherwise}"
    return refusal(error, otherwise)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a settings file: a JSON document with the fields of `TrainSettings`.

    Raises:
        InputError: if the file cannot be read or does not hold a JSON object.
    """
    try:
        document = parse_json(read_text(path))
    except UnicodeDecodeError as error:
        raise unreadable(f"settings file {path}", error) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"settings file {path} cannot be read ({error}): name a JSON file of settings, such as "
            "one that a campaign wrote."
        ) from None
    if what := mistaken_for("settings file", document):
        raise InputError(
            f"{path} is {what}, and no settings file: name a JSON file of settings, such as one "
            "that a campaign wrote."
        )
    if not isinstance(document, dict):
        raise InputError(
            f"settings file {path} holds {type(document).__name__}, accepted is one JSON object: "
            'such as {"model": "mlp", "dataset": "digits"}.'
        )
    return document


def settings_fields(strategy: str) -> list[DescribedField]:
    """Return the settings fields of a strategy's runs, the strategy's own options last.

    Raises:
        InputError: if there is no such strategy.
    """
    own = strategy_named(strategy).options
    return [*described_fields(TrainSettings), *described_fields(own)]


def refuse_unknown_options(values: Mapping[str, object]) -> None:
    """Refuse settings that do not exist, and options that mean something to other strategies alone.

    An option that a strategy declares without taking it may have its default, which asks for
    nothing.

    Raises:
        InputError: naming the option and what is accepted.
    """
    name = str(values.get("strategy", DEFAULT_STRATEGY))
    strategy = strategy_named(name)
    own = strategy.options.model_fields
    for key, value in values.items():
        if key in TrainSettings.model_fields or strategy.takes(key):
            continue
        if key in own and value == own[key].default:
            continue
        takers = [other for other, each in STRATEGIES.items() if each.takes(key)]
        if takers:
            option = option_name(key, *(STRATEGIES.named(taker).options for taker in takers))
            found = (
                f"{option} is {value}, but it means nothing under --strategy {name}"
                if key in own
                else f"{option} was given with --strategy {name}, which has no such option"
            )
            raise InputError(f"{found}: leave it out, or use --strategy {' or '.join(takers)}.")
        accepted = [*TrainSettings.model_fields, *own]
        raise InputError(
            f"train: unknown setting {key!r}{closest(key, accepted)}: accepted are "
            f"{', '.join(field for field in accepted if field != 'own')}."
        )


def computing_settings(document: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings that determine what is computed, under dotted names.

    Args:
        document: settings as a file holds them, including the strategy's own options.
    """
    strategy = str(document.get("strategy", DEFAULT_STRATEGY))
    free = {".".join(f.path) for f in settings_fields(strategy) if not f.option.computes}
    return {name: value for name, value in flatten_settings(document).items() if name not in free}


def first_difference(
    theirs: Mapping[str, object], ours: Mapping[str, object]
) -> tuple[str, object, object] | None:
    """Return the first setting that differs, and its value on both sides (None if missing)."""
    for name in [*ours, *theirs]:
        if theirs.get(name) != ours.get(name):
            return name, theirs.get(name), ours.get(name)
    return None
