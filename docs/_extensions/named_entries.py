"""Lists what the registries hold: strategies, schedules, planners, models and data sets."""

from markdown_parts import code, table

from hpc_lpm.data.registry import DATASETS
from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.models.evaluation_metrics import EVALUATION_METRICS
from hpc_lpm.models.losses import LOSSES
from hpc_lpm.models.registry import MODELS
from hpc_lpm.options import described_fields
from hpc_lpm.planning.planners.registry import PLANNERS
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.user_functions import first_line


def named_entries() -> str:
    """Return a table for each registry."""
    strategies = [
        [
            code(name),
            strategy.description,
            "yes" if strategy.needs_plan else "no",
            ", ".join(code(field.option_name) for field in described_fields(strategy.options)),
        ]
        for name, strategy in STRATEGIES.items()
    ]
    columns = ["name", "what it is", "needs a plan", "options of its own"]
    parts = ["## Strategies", table(columns, strategies)]
    for title, registry in {"Schedules": SCHEDULES, "Planners": PLANNERS}.items():
        rows = [[code(name), entry.description] for name, entry in registry.items()]
        parts += [f"## {title}", table(["name", "what it is"], rows)]
    for title, registry in {"Models": MODELS, "Data sets": DATASETS}.items():
        rows = [
            [code(name), _options(entry.options()), entry.description]
            for name, entry in registry.items()
        ]
        parts += [f"## {title}", table(["name", "options and defaults", "what it is"], rows)]
    losses = [[code(name), first_line(loss)] for name, loss in LOSSES.items()]
    metrics = [[code(name), metric.description] for name, metric in EVALUATION_METRICS.items()]
    parts += ["## Losses", table(["name", "what it is"], losses)]
    parts += ["## Metrics of an evaluation", table(["name", "what it is"], metrics)]
    return "\n\n".join(parts)


def _options(options: dict[str, object]) -> str:
    return ", ".join(code(f"{name}={value}") for name, value in options.items())
