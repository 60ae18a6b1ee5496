"""`hpc-lpm advise`: which strategy to use for a model and its devices, and why."""

from hpc_lpm.cli import advise_options as given
from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json
from hpc_lpm.cli.outputs import check_output, named_inputs
from hpc_lpm.cli.plan_options import EfficiencyOption
from hpc_lpm.cli.profile_options import BandwidthOption, LatencyOption
from hpc_lpm.planning.forecast.case import Case, Nodes, check_numbers
from hpc_lpm.planning.lists import memory_limit_of
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.worth.measured import check_recipe, measurements
from hpc_lpm.profile_formats.read import latency_of, read_profile, with_link
from hpc_lpm.ranks import rank_from_environment
from hpc_lpm.recipes import AUTO


@app.command("advise")
def advise_command(
    model: given.ModelArgument,
    *,
    dataset: given.DatasetOption,
    devices: given.DevicesOption,
    batch_size: given.BatchSizeOption = 64,
    profile: given.ProfileOption = None,
    micro_batch: given.MicroBatchOption = None,
    repeats: given.RepeatsOption = None,
    device: given.DeviceOption = None,
    optimizer: given.OptimizerOption = "momentum",
    lr: given.LearningRateOption = None,
    recipe: given.RecipeOption = AUTO,
    efficiency: EfficiencyOption = None,
    memory_limit: given.MemoryLimitOption = None,
    latency: LatencyOption = None,
    bandwidth: BandwidthOption = None,
    node_link: given.NodeLinkOption = None,
    devices_per_node: given.DevicesPerNodeOption = None,
    also: given.AlsoOption = None,
    data_dir: given.DataDirOption = None,
    precision: given.PrecisionOption = None,
    loss: given.LossOption = None,
    write_campaign: given.WriteCampaignOption = None,
    as_json: given.JsonOption = False,
) -> None:
    """Predict every strategy for a model on so many devices, the first at a target first.

    Under mpirun all ranks profile at once, and the link between them is measured.
    """
    # Imported here, because models import torch, which takes seconds.
    from hpc_lpm.advice.asked_profiles import AskedProfiles
    from hpc_lpm.advice.campaign_file import check_campaign_file
    from hpc_lpm.advice.campaign_file import write_campaign as write
    from hpc_lpm.advice.ranking import names_with, rank
    from hpc_lpm.advice.reasons import what_changes_it, why_first
    from hpc_lpm.cli.advise_table import advice_document, show_advice
    from hpc_lpm.engine.optimizer import usual_rate

    check_numbers(devices, batch_size)
    if write_campaign is not None:
        inputs = [*(profile or ()), *([efficiency] if efficiency else [])]
        inputs += named_inputs(model, dataset, loss, optimizer)
        check_output("--write-campaign", write_campaign, kind="campaign file", inputs=inputs)
        check_campaign_file(write_campaign, model, dataset)
    measured = measurements(efficiency)
    check_recipe(recipe, measured)
    shared = {
        "model": model,
        "dataset": dataset,
        "batch_size": batch_size,
        "optimizer": {"name": optimizer, "lr": usual_rate(optimizer) if lr is None else lr},
        **_given(data_dir=data_dir and str(data_dir), loss=loss, precision=precision),
    }
    nodes, delay = Nodes.of(node_link, devices_per_node), latency_of("--latency", latency)
    options = PlanOptions.checked(
        **_given(memory_limit=memory_limit_of(memory_limit)), recipe=recipe
    )
    asked = AskedProfiles(
        read=tuple(map(read_profile, profile or ())),
        micro_batches=tuple(micro_batch or ()),
        repeats=repeats,
        device=device,
    )
    subject, profiles, threaded = asked.made_for(shared, devices, nodes)
    if rank_from_environment() != 0:
        return
    case = Case(
        profiles=tuple(with_link(each, delay, bandwidth) for each in profiles),
        devices=devices,
        batch_size=batch_size,
        options=options.model_copy(update={"optimizer": subject.planned_optimizer}),
        measured=measured,
        nodes=nodes,
        threaded_seconds=threaded,
    )
    ranking = rank(subject, case, names_with(also or ()))
    reasons = [why_first(ranking), *what_changes_it(ranking, subject)]
    if write_campaign is not None:
        write(write_campaign, ranking, subject, reasons)
    if as_json:
        print_json(advice_document(ranking, reasons))
        return
    show_advice(ranking, reasons)
    if write_campaign is not None:
        console().print(
            f"Written to {write_campaign}; race them with: snakemake --cores {devices} "
            f"--configfile {write_campaign}",
            soft_wrap=True,
        )


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
