"""The campaign file: which contestants train which models, on which data and how often."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from hpc_lpm.campaign.contestants import Contestant, contestant_tuning, contestants_of
from hpc_lpm.campaign.metrics import TARGET_METRICS, MetricName
from hpc_lpm.campaign.sections import Expectation, Launcher, Resources, Tuning
from hpc_lpm.campaign.target import Target
from hpc_lpm.documents import DocumentError, parse_json, parse_yaml
from hpc_lpm.engine.strategies.registry import STRATEGIES, strategy_named
from hpc_lpm.errors import InputError, closest
from hpc_lpm.file_kinds import mistaken_for
from hpc_lpm.files import read_text, unreadable
from hpc_lpm.options import MAX_SEED, LearningRateSettings, OptimizerSettings, RunOptions
from hpc_lpm.typed_values import refusal

Names = Annotated[list[str], Field(min_length=1)]

MOST_STAGES, MOST_RUNS = 2**16, 10_000
"""More devices than any machine has, and more runs of one contestant than anyone waits for."""

LONGEST_NAME = 100
"""Characters of a campaign's name: file systems take 255 bytes."""
_NAME = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}"


def _checked_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise PydanticCustomError(
            "campaign_name",
            "accepted are letters (capitals too), digits, dots, hyphens and underscores, of which "
            "the first is a letter or digit, and at most {longest} of them",
            {"longest": LONGEST_NAME},
        )
    return name


CampaignName = Annotated[
    str,
    AfterValidator(_checked_name),
    WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$"}),
]


class Campaign(RunOptions):
    """A campaign; its trials are the product of models, datasets, strategies, planners and seeds.

    Besides its own keys it has those of `hpc-lpm train`, and the options that strategies declare
    for themselves such as `lead` and `weights`, which apply to the strategies that take them.
    Exactly one of `epochs` and `steps` (optimizer steps) gives the length of every trial.

    An entry of `strategies` is a name, or a name with settings for this contestant alone, `stages`,
    `replicas`, `cuts`, `cut_only_at` and `micro_batches` included: `{fbp: {name: fbp-live, weights:
    live}}`. `name` is its label in expectations, tables and figures. With `replicas: 2` its devices
    hold two copies of every stage, and `micro_batches` counts those of one copy.

    `cuts` and `cut_only_at` are what `hpc-lpm plan --cuts` and `--cut-only-at` take, as lists.
    Where `cuts` are set, `stages` follows from them.

    `again: N` of a contestant runs it N times more for each seed and repeat. A contestant that
    came later is so compared with one that had been trained before: ratios pair runs of one call of
    snakemake.

    `target` adds the steps and seconds that each contestant takes to a value of a metric. Where the
    learning rate decays, the steps follow from runs of several lengths, each with its own schedule:
    `lengths: [400, 500]` runs every contestant at these epochs or steps too, and
    `{fbp: {lengths: [700]}}` one of them.

    `tune: true` searches for the best settings of every contestant before its trials, and
    `{fbp: {tune: {budget_seconds: 120}}}` for those of one. What the campaign sets stays.

    `keep: [weights]` leaves `weights.safetensors` in the folder of every run, as `hpc-lpm export`
    writes it, and `keep: [checkpoints]` the last checkpoint, which else is removed.

    `restarts` is how often a trial that has lost a rank starts again from its last checkpoint
    within its job. With `elastic: true` one that loses it again at the same step is planned again
    for one device less, and left out of all tables.
    """

    name: CampaignName = Field(description="its folder in results/")
    models: Names = Field(description="models to train, as `hpc-lpm train --model` takes them")
    datasets: Names = Field(description="data sets to train on")
    strategies: Annotated[list[str | dict[str, Any]], Field(min_length=1)] = Field(
        description="contestants: a strategy, or {strategy: {setting: value}}"
    )
    planners: Names = Field(default=["lpm"], description="planners that cut models into stages")
    cuts: list[int | str] = Field(
        default=[],
        description="a split of your own instead of planners: positions, or names to cut behind",
    )
    cut_only_at: list[str] = Field(
        default=[], description="names, patterns and type:CLASS behind which alone cuts may be"
    )
    stages: int = Field(default=2, ge=2, le=MOST_STAGES, description="devices of every contestant")
    seeds: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] = Field(
        default=[0], min_length=1, description="seeds that every contestant is run with"
    )
    repeats: int = Field(default=1, gt=0, le=MOST_RUNS, description="how often everything is run")
    keep: list[Literal["weights", "checkpoints"]] = Field(
        default=[], description="what to keep of trained models: weights, checkpoints"
    )
    restarts: int = Field(
        default=2, ge=0, description="how often a trial that has lost a rank starts again by itself"
    )
    elastic: bool = Field(
        default=False, description="whether a trial goes on with fewer devices if one is gone"
    )
    tune: bool | Tuning = Field(
        default=False, description="search for the best settings of contestants before their trials"
    )
    share_launch: bool = Field(
        default=False, description="whether trials of a model and data set share ranks, in turn"
    )
    launcher: Launcher = Launcher()
    resources: Resources = Resources()
    metrics: list[MetricName] = Field(
        default=[], description="further metrics of your own, as module:name"
    )
    expect: list[Expectation] = Field(default=[], description="bounds on ratios of contestants")
    target: Target | None = Field(
        default=None, description="what contestants are to reach, in how many steps and seconds"
    )
    lengths: list[Annotated[int, Field(gt=0)]] = Field(
        default=[], description="further lengths of every contestant's runs, for the target"
    )
    own: dict[str, Any] = Field(
        default={}, exclude=True, description="options that strategies declare, by name"
    )

    @property
    def contestants(self) -> list[Contestant]:
        """The contestants, in the order in which they take turns."""
        return contestants_of(self.strategies)

    @property
    def set_shared(self) -> set[str]:
        """The options of all runs that the campaign sets; the others are at their defaults."""
        return self.model_fields_set & set(RunOptions.model_fields)

    @property
    def further_metrics(self) -> list[str]:
        """The names of the metrics that are computed beside those of every campaign."""
        expected = [expectation.metric for expectation in self.expect]
        of_target = [metric.name for metric in TARGET_METRICS] if self.target else []
        return [*self.metrics, *expected, *of_target]

    @model_validator(mode="before")
    @classmethod
    def _own_options_apart(cls, document: Any) -> Any:
        if not isinstance(document, dict) or "own" in document:
            return document
        known = set(_own_fields(document.get("strategies")))
        own = {name: value for name, value in document.items() if name in known}
        shared = {name: value for name, value in document.items() if name not in own}
        cuts = document.get("cuts")
        if isinstance(cuts, list) and cuts:
            shared.setdefault("stages", len(cuts) + 1)
        return {**shared, "own": own}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            found = "neither is" if self.epochs is None else "both are"
            raise ValueError(f"exactly one of epochs and steps must be set, but {found}")
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by micro_batches "
                f"{self.micro_batches}, but all micro-batches must hold as many samples"
            )
        for key in ("models", "datasets", "planners", "seeds", "metrics"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names something twice, but each is accepted once")
        if self.cuts and self.planners != ["lpm"]:
            raise ValueError(
                "cuts and planners are both set, but with cuts of your own nothing is searched: "
                "leave one of the two out"
            )
        if self.cuts and self.stages != len(self.cuts) + 1:
            raise ValueError(
                f"stages is {self.stages}, but cuts {', '.join(map(str, self.cuts))} make "
                f"{len(self.cuts) + 1} stages: leave stages out"
            )
        if self.share_launch and self.target:
            raise ValueError(
                "share_launch and target are both set, but trials that share ranks keep no log of "
                "single steps, which a target needs: leave one of the two out"
            )
        labels = [contestant.label for contestant in self.contestants]
        for expectation in self.expect:
            for label in (expectation.strategy, expectation.relative_to):
                if label not in labels:
                    raise ValueError(
                        f"expect names strategy {label!r}, which is not among the "
                        f"strategies of the campaign ({', '.join(labels)})"
                    )
        return self

    @model_serializer(mode="wrap")
    def _flat(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document = {**serialise(self), **self.own}
        if any(contestant_tuning(self, contestant) for contestant in self.contestants):
            # A tuning tells by it what is left open.
            open_options = set(RunOptions.model_fields) - self.set_shared
            document = {k: v for k, v in document.items() if k not in open_options}
        return document


def fields_of(document: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Return the fields that the keys of a campaign file stand for, those of strategies too."""
    return {**Campaign.model_fields, **_own_fields(document.get("strategies"))}


def _own_fields(entries: object) -> dict[str, FieldInfo]:
    """Return the options that registered strategies, and those of `entries`, declare."""
    listed = entries if isinstance(entries, list) else []
    named = [next(iter(each), "") if isinstance(each, dict) else each for each in listed]
    own: dict[str, FieldInfo] = {}
    for name in dict.fromkeys([*STRATEGIES.names(), *map(str, named)]):
        try:
            own.update(strategy_named(name).options.model_fields)
        except InputError:
            continue  # reported where the names are checked
    return own


_SECTIONS: dict[str, type[BaseModel]] = {
    "optimizer": OptimizerSettings,
    "learning_rate": LearningRateSettings,
    "launcher": Launcher,
    "resources": Resources,
    "tune": Tuning,
    "expect": Expectation,
    "target": Target,
}


def read_campaign(path: Path) -> Campaign:
    """Read a campaign file (YAML, or the JSON that a campaign folder keeps).

    Raises:
        InputError: if the file is missing, is not YAML, or does not hold a valid campaign.
    """
    return campaign_from_document(read_campaign_document(path), str(path))


def read_campaign_document(path: Path) -> dict[str, Any]:
    """Read the keys of a campaign file without checking them.

    Raises:
        InputError: if the file is missing, is not YAML (or JSON, if it is called so), or no keys.
    """
    kind, parse = ("JSON", parse_json) if path.suffix == ".json" else ("YAML", parse_yaml)
    try:
        document = parse(read_text(path))
    except FileNotFoundError:
        raise InputError(
            f"campaign file {path} does not exist: name an existing file, such as "
            "config/quick.yaml."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(f"campaign file {path}", error) from None
    except DocumentError as error:
        raise InputError(f"campaign file {path} is not {kind} ({error}): correct it.") from None
    if what := mistaken_for("campaign file", document):
        raise InputError(
            f"{path} is {what}, and no campaign file: name one, such as config/quick.yaml."
        )
    if not isinstance(document, dict):
        raise InputError(
            f"campaign file {path} holds no keys where at least name, models, datasets, "
            "strategies and epochs are expected: start from config/quick.yaml."
        )
    return document


def campaign_from_document(document: Mapping[str, Any], where: str) -> Campaign:
    """Validate the keys of a campaign file; `where` names it in errors.

    Raises:
        InputError: if a key is unknown or missing, or a value is not accepted.
    """
    try:
        return Campaign.model_validate(document)
    except ValidationError as error:
        raise InputError(f"campaign file {where}: {_sentence(error)}.") from None


def campaign_schema() -> dict[str, Any]:
    """Return the JSON schema of the campaign file, for editors."""
    schema = Campaign.model_json_schema()
    del schema["properties"]["own"]
    for _, strategy in STRATEGIES.items():
        own = strategy.options.model_json_schema()
        schema["properties"].update(own.get("properties", {}))
        schema.setdefault("$defs", {}).update(own.get("$defs", {}))
    return schema


def _section_with(key: str) -> str:
    """Return a hint at the section that has a key, nothing if none has it."""
    for name in ("optimizer", "learning_rate", "resources"):
        if key in _SECTIONS[name].model_fields:
            return f", did you mean {name}: {{{key}: ...}}?"
    return ""


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        owner = _SECTIONS.get(location[0], Campaign) if len(location) > 1 else Campaign
        accepted = [name for name in owner.model_fields if name != "own"]
        accepted += _own_fields(()) if owner is Campaign else ()
        section = f" in {'.'.join(location[:-1])}" if len(location) > 1 else ""
        hint = _section_with(location[-1]) if owner is Campaign else ""
        hint = hint or closest(location[-1], accepted)
        return (
            f"unknown key {location[-1]!r}{section}{hint} (accepted are "
            f"{', '.join(accepted)}): correct or remove it"
        )
    if first["type"] == "value_error":
        return f"{first['msg'].removeprefix('Value error, ')}: correct it"
    return refusal(error, "correct it")
