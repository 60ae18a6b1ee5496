"""What faults did, and how long it took to end and to go on: lines that become a table.

    python -m tests.faults.outcomes LINES.jsonl TABLE.md

writes the table. Tests append their lines to the file that HPC_LPM_FAULT_LINES names, if it does.
"""

import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "HPC_LPM_FAULT_LINES"


@dataclass(frozen=True)
class Outcome:
    """What became of a fault.

    Attributes:
        fault: what was done, and to what.
        outcome: what became of the run, as a user sees it.
        ended_seconds: from the fault until the last process of the run had ended; None where
            nothing ends.
        resumed_seconds: from the start of what goes on until its first new step; None where there
            is nothing to go on with.
    """

    fault: str
    outcome: str
    ended_seconds: float | None = None
    resumed_seconds: float | None = None

    def record(self) -> None:
        """Append the line to the file that the environment names, if it does."""
        if path := os.environ.get(VARIABLE):
            with Path(path).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(self)) + "\n")


def table(outcomes: list[Outcome]) -> str:
    """Return the table of the outcomes, a row for each kind of fault."""
    lines = ["| fault | outcome | seconds to end | seconds to resume |", "|---|---|---|---|"]
    for fault in dict.fromkeys(each.fault for each in outcomes):
        of_kind = [each for each in outcomes if each.fault == fault]
        outcome = "; ".join(dict.fromkeys(each.outcome for each in of_kind))
        ended = _shown([each.ended_seconds for each in of_kind])
        resumed = _shown([each.resumed_seconds for each in of_kind])
        lines.append(f"| {fault} | {outcome} | {ended} | {resumed} |")
    return "\n".join(lines) + "\n"


def _shown(seconds: list[float | None]) -> str:
    found = sorted(each for each in seconds if each is not None)
    if not found:
        return ""
    middle = f"{statistics.median(found):.1f}"
    return middle if len(found) == 1 else f"{middle} ({found[0]:.1f} to {found[-1]:.1f})"


if __name__ == "__main__":
    lines_file, table_file = map(Path, sys.argv[1:])
    table_file.write_text(
        table([Outcome(**json.loads(line)) for line in lines_file.read_text().splitlines()])
    )
