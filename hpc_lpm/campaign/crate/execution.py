"""What was executed, as it goes into a crate."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Execution:
    """One start of a step or a run; `objects` and `results` are paths of files in the crate.

    `parameters` and `outcomes` are single values that went in and came out, `environment` the
    variables that say where it ran. `error` is None if it ended well, `exit_code` if there is none.
    """

    identifier: str
    name: str
    description: str
    started: datetime
    ended: datetime | None
    exit_code: int | None
    error: str | None
    objects: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    parameters: dict[str, str | int] = field(default_factory=dict)
    outcomes: dict[str, str | int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
