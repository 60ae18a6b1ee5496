"""`hpc-lpm doctor`: checks whether this machine is fit for training, and says what to fix."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_DONE, EXIT_NOT_HELD
from hpc_lpm.cli.link_matrix import show_links
from hpc_lpm.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from hpc_lpm.doctor.situation import Finding


@app.command()
def doctor(
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of ranks to start; by default the number of tasks in a Slurm job, else 2. "
            "Under mpirun or srun, the ranks of that job are examined instead.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Check this machine, or the nodes of this Slurm job, and say what to fix.

    Ranks, cores, GPUs, links, clocks, Slurm, files and packages are examined.
    The exit code is 1 if a check failed.
    """
    from hpc_lpm.doctor.bounded_waits import end_process_after
    from hpc_lpm.doctor.examination import examine_machine
    from hpc_lpm.doctor.probe import ENDING_SECONDS, abandon_ranks
    from hpc_lpm.doctor.probe_start import in_job, is_first_of_this_job

    examination = examine_machine(ranks)
    findings = examination.findings
    failed = sum(finding.verdict == "failed" for finding in findings)
    if is_first_of_this_job():
        if as_json:
            print_json(
                {
                    "checks": [asdict(finding) for finding in findings],
                    "failed": failed,
                    "links": [link.model_dump(mode="json") for link in examination.links],
                }
            )
        else:
            show_links(examination.links)
            _show(findings, failed)
    if examination.ranks_hang:
        abandon_ranks()
    elif in_job():
        end_process_after(ENDING_SECONDS)
    return EXIT_NOT_HELD if failed else EXIT_DONE


def _show(findings: "tuple[Finding, ...]", failed: int) -> None:
    from hpc_lpm.doctor.situation import counted

    rows = [[finding.name, finding.verdict, _told(finding)] for finding in findings]
    print_table("findings", ["check", "verdict", "found"], rows)
    for finding in findings:
        if finding.verdict == "ok" and finding.remedy:
            # Not in the table and not wrapped, so that a command can be copied.
            note = f"note on {finding.name}: {finding.remedy}"
            console().print(note, soft_wrap=True)
    warnings = sum(finding.verdict == "warning" for finding in findings)
    ok = len(findings) - failed - warnings
    summary = f"{ok} ok, {counted(warnings, 'warning')}, {failed} failed"
    console().print(f"{summary}: {_ADVICE[bool(failed), bool(warnings)]}.")


def _told(finding: "Finding") -> str:
    # A column of its own for the remedy would not fit into a terminal of 80 columns.
    shows_remedy = finding.remedy and finding.verdict != "ok"
    return f"{finding.found}\n-> {finding.remedy}" if shows_remedy else finding.found


_ADVICE = {
    (False, False): "ready for training",
    (False, True): "training works here; read the warnings before you trust measured times",
    (True, False): "fix what failed first",
    (True, True): "fix what failed first, then read the warnings",
}
