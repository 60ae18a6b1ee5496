"""`hpc-lpm doctor`: is this machine fit to run on, and if not, what to mend."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

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
            help="Ranks to start, by default one a task of a Slurm job, else 2; in an MPI job its "
            "own are used.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Check the machine and every pair of nodes: ranks, links, clocks, GPUs, Slurm, files."""
    from hpc_lpm.doctor.bounded_waits import bound_process
    from hpc_lpm.doctor.examination import examine_machine
    from hpc_lpm.doctor.probe import ENDING_SECONDS, abandon_ranks
    from hpc_lpm.doctor.starting import in_job, is_first_of_this_job

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
        bound_process(ENDING_SECONDS)
    return EXIT_NOT_HELD if failed else EXIT_DONE


def _show(findings: "tuple[Finding, ...]", failed: int) -> None:
    # What other programs said may hold brackets, which a table would take for its markup.
    rows = [[escape(text) for text in asdict(finding).values()] for finding in findings]
    print_table("this machine", ["check", "verdict", "found", "what to do"], rows)
    warnings = sum(finding.verdict == "warning" for finding in findings)
    summary = f"{len(findings) - failed - warnings} ok, {warnings} warnings, {failed} failed"
    console().print(f"{summary}: {_ADVICE[bool(failed), bool(warnings)]}.")


_ADVICE = {
    (False, False): "this machine is fit to run on",
    (False, True): "it runs here; see the warnings before trusting times",
    (True, False): "mend what failed first",
    (True, True): "mend what failed first, then see the warnings",
}
