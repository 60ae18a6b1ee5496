"""`hpc-lpm campaign ...`: the steps of a campaign, as the Snakefile calls them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_NOT_HELD
from hpc_lpm.cli.output import console
from hpc_lpm.errors import InputError

campaign_app = typer.Typer(
    name="campaign",
    help="Tidy up a campaign's folder, and the steps of a campaign that the Snakefile calls.",
    no_args_is_help=True,
)
app.add_typer(campaign_app)

Folder = Annotated[Path, typer.Argument(help="folder of the campaign")]


@campaign_app.command()
def prune(
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="remove what is listed")] = False,
) -> None:
    """List the runs, plans and profiles of settings that a campaign no longer has; remove them.

    Nothing is removed without --yes. The campaign is the one that snakemake was last called with.
    """
    from hpc_lpm.campaign.prune import find_leftovers, remove_leftovers

    leftovers = find_leftovers(folder)
    for leftover in leftovers:
        size = f"{leftover.size_bytes / 2**20:.1f} MiB"
        console().print(f"{leftover.path} ({size}): {leftover.reason}", soft_wrap=True)
    if not leftovers:
        console().print("Nothing is left over.")
    elif yes:
        remove_leftovers(folder, leftovers)
        console().print(f"{len(leftovers)} removed.")
    else:
        console().print("Nothing was removed: --yes removes all of it.")


@campaign_app.command()
def submit(
    config: Annotated[
        Path | None, typer.Argument(help="campaign file; by default that of the Snakefile")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(help="-- and further options of snakemake")
    ] = None,
) -> None:
    """Send the driver of a campaign to Slurm as a job, with what slurm/site.yaml asks for.

    It is the job of slurm/campaign.sbatch, whose lines #SBATCH say what the driver needs itself.
    """
    from hpc_lpm.campaign.submission import submit_driver

    named = [] if config is None else [str(config)]
    if config is not None and config.is_file():
        named = [f"./{config}"] if str(config).startswith("-") else named  # it is no option
    elif config is not None and not str(config).startswith("-"):
        raise InputError(f"campaign file {config} does not exist: name one that does.")
    typer.echo(submit_driver(Path(), [*named, *(options or [])]))


@campaign_app.command()
def environment(folder: Folder) -> None:
    """Record in provenance/ what the campaign runs on."""
    from hpc_lpm.campaign.environment import describe_environment
    from hpc_lpm.campaign.folder import CampaignFolder
    from hpc_lpm.campaign.workflow import RULES
    from hpc_lpm.files import write_text_atomically

    files = CampaignFolder(folder)
    campaign = files.read_campaign()
    described = json.dumps(describe_environment(campaign), indent=2)
    write_text_atomically(files.environment, described + "\n")
    write_text_atomically(files.workflow, Path(RULES).read_text(encoding="utf-8"))


@campaign_app.command()
def launch(
    folder: Folder,
    arguments: Annotated[list[str], typer.Argument(help="-- and a command of hpc-lpm")],
    *,
    ranks: Annotated[int, typer.Option(help="number of ranks to start")],
    log: Annotated[Path, typer.Option(help="file that the output goes to")],
    mpi: Annotated[str, typer.Option(help="mpirun or srun")] = "mpirun",
    trial: Annotated[str | None, typer.Option(help="trial whose progress is shown")] = None,
    attempt: Annotated[int, typer.Option(help="which attempt of this driver it is")] = 1,
    restarts: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="how often a trial that lost a rank starts again [default: as the campaign says]",
        ),
    ] = None,
    elastic: Annotated[
        bool,
        typer.Option("--elastic", help="let a trial go on with fewer devices if one is gone"),
    ] = False,
    outside: Annotated[
        bool, typer.Option("--outside", help="run it outside of the site's container")
    ] = False,
) -> int:
    """Run a command on its ranks, log its output and tell how far the campaign is."""
    from hpc_lpm.campaign.calls import call_of_this_job
    from hpc_lpm.campaign.folder import CampaignFolder
    from hpc_lpm.campaign.launching import launch_step, launch_trial
    from hpc_lpm.campaign.steps import Steps

    call = call_of_this_job()
    if call is None:
        files = CampaignFolder.at(folder)
        steps = Steps(files.read_campaign(), files)
    else:
        steps = call.steps(folder.parent)
    if trial is None:
        return launch_step(steps.campaign, arguments, ranks, mpi, log, _say, outside=outside)
    return launch_trial(
        steps,
        trial,
        arguments,
        ranks,
        mpi,
        log,
        _say,
        attempt=attempt,
        call=call,
        restarts=restarts,
        elastic=elastic,
    )


@campaign_app.command()
def tune(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="the tuning, as its file in tuned/ is called")],
    *,
    log: Annotated[Path, typer.Option(help="file that the output goes to, one a launch")],
    mpi: Annotated[str, typer.Option(help="mpirun or srun")] = "mpirun",
) -> int:
    """Search for the best settings of a contestant by short trainings."""
    from hpc_lpm.campaign.calls import call_of_this_job
    from hpc_lpm.campaign.folder import CampaignFolder
    from hpc_lpm.campaign.steps import Steps
    from hpc_lpm.campaign.tuning.tune import tune as search

    call = call_of_this_job()
    files = CampaignFolder.at(folder)
    steps = Steps(files.read_campaign(), files) if call is None else call.steps(folder.parent)
    return search(steps, name, mpi, log, _say)


@campaign_app.command()
def short_trainings(
    request: Annotated[Path, typer.Argument(help="file that tells what to train")],
    out: Annotated[Path, typer.Option(help="file of the seconds of its steps")],
) -> None:
    """Train candidates of a tuning in turn, as every rank of it does."""
    from hpc_lpm.campaign.tuning.short_trainings import train_in_turn

    train_in_turn(request, out)


@campaign_app.command()
def train_in_turn(
    request: Annotated[Path, typer.Argument(help="file that tells which trials")],
) -> None:
    """Train trials that share one launch in turn, as every rank of it does."""
    from hpc_lpm.campaign.shared_launch import train_in_turn as train

    train(request, _say)


@campaign_app.command()
def summary(folder: Folder) -> None:
    """Write the tables, provenance/launches.json and provenance/provenance.json."""
    from hpc_lpm.campaign.provenance import write_provenance
    from hpc_lpm.campaign.results import load_results, write_tables

    results = load_results(folder)
    write_tables(results)
    write_provenance(results)


@campaign_app.command()
def expectations(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="file to write if all expectations hold")],
) -> int:
    """Check the campaign's expectations of its results; exit 1 if one does not hold."""
    from hpc_lpm.campaign.crate.write import write_crate
    from hpc_lpm.campaign.expectations import judge
    from hpc_lpm.campaign.folder import CampaignFolder
    from hpc_lpm.campaign.provenance import gather_provenance
    from hpc_lpm.campaign.results import load_results
    from hpc_lpm.files import write_text_atomically

    if out.exists() and not _holds_verdicts(out):
        raise InputError(
            f"--out {out} holds something else than the verdicts on a campaign, which this command "
            "would replace or remove: name another file."
        )
    results = load_results(folder)
    verdicts = judge(results.campaign, results.summary)
    for verdict in verdicts:
        console().print(f"{verdict.sentence()}.", soft_wrap=True)
    refused = results.refused_sentence()
    if refused or not all(verdict.held for verdict in verdicts):
        out.unlink(missing_ok=True)
        write_crate(results, gather_provenance(results))
        why = refused or (
            "the campaign ran, but something that it expects does not hold: see "
            f"{CampaignFolder(folder).report}."
        )
        typer.echo(f"hpc-lpm: {why}", err=True)
        return EXIT_NOT_HELD
    sentences = [verdict.sentence() for verdict in verdicts]
    write_text_atomically(out, json.dumps(sentences, indent=2) + "\n")
    write_crate(results, gather_provenance(results))
    return 0


def _holds_verdicts(path: Path) -> bool:
    """Tell if a file is empty, or holds the sentences of an earlier call."""
    from hpc_lpm.documents import DocumentError, parse_json
    from hpc_lpm.files import read_text

    try:
        text = read_text(path)
        found = parse_json(text) if text.strip() else []
    except (OSError, UnicodeDecodeError, DocumentError):
        return False
    return isinstance(found, list) and all(isinstance(each, str) for each in found)


def _say(line: str) -> None:
    print(line, flush=True)
