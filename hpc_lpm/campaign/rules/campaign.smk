# The rules of a campaign: environment -> profile -> plan or tune -> train -> summary -> report ->
# expectations.
#
# A Snakefile includes them by `module campaign:` and calls `campaign.onstart()` and
# `campaign.onerror()` in handlers of its own. The keys of the module's `config` are
#
#   campaign    the campaign file that is run where `--configfile` names none
#   software    an environment for those who let conda provide the packages (optional)
#
# What the rules run, and in which order trials take turns, is decided in hpc_lpm/campaign.

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from hpc_lpm.campaign.beginning import describe_beginning
from hpc_lpm.campaign.calls import CALL
from hpc_lpm.campaign.damage import find_damage
from hpc_lpm.campaign.driver import Driver, take_over
from hpc_lpm.campaign.orphans import mark
from hpc_lpm.campaign.remote_jobs import keep_jobs
from hpc_lpm.campaign.resources import UNPROFILED_MEGABYTES, UNPROFILED_MINUTES, check_leaves_time
from hpc_lpm.campaign.workflow import (
    any_of,
    check_names_for_shells,
    load_call,
    options_of_profile,
    prepare_jobs,
)
from hpc_lpm.cluster.site import Site
from hpc_lpm.errors import InputError

prepare_jobs(Path(workflow.basedir))
try:
    check_names_for_shells(
        ("Snakefile", workflow.main_snakefile),
        ("folder", Path.cwd()),
        *(("campaign file", path) for path in workflow.configfiles),
        *(("--config", given) for given in workflow.config_settings.config_args or ()),
    )
    SITE = Site.read(Path(workflow.basedir))
    THIS_CALL = load_call(
        workflow.config_settings.config,
        workflow.configfiles,
        default=Path(config["campaign"]),
        results=Path("results"),
        is_job=not workflow.is_main_process,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    STEPS = THIS_CALL.steps(Path("results"))
    # What the profile adds to sbatch's options stays: what a rule asks for would replace it.
    EXTRA = options_of_profile(workflow.resource_settings)
    check_leaves_time(STEPS.campaign.resources, EXTRA)
    SITE.check_launcher(STEPS.campaign.launcher.mpi)
except InputError as error:
    raise WorkflowError(str(error))

CAMPAIGN = STEPS.campaign
ROOT = str(STEPS.folder.root)
# Runs have the names of their trials and the hashes of what they are computed from.
TRIALS = {STEPS.folder.run_name(trial): trial for trial in STEPS.trials.values()}
# One rank and several are started in different ways, so that each step has two rules.
PROFILED_ALONE = [name for name, step in STEPS.profiles.items() if step.ranks == 1]
PROFILED_TOGETHER = [name for name, step in STEPS.profiles.items() if step.ranks > 1]
TUNED_ALONE = [name for name, step in STEPS.tunings.items() if step.ranks == 1]
TUNED_TOGETHER = [name for name, step in STEPS.tunings.items() if step.ranks > 1]
ALONE = [run for run, trial in TRIALS.items() if trial.processes == 1]
TOGETHER = [run for run, trial in TRIALS.items() if trial.processes > 1]
EVERY_RUN = [f"{ROOT}/runs/{run}/{file}" for run in TRIALS for file in STEPS.run_files]
# It is there if what the campaign was summarised for is what it is now.
ASKED = str(THIS_CALL.asked(STEPS.folder.root))
if workflow.is_main_process:
    # Tells the jobs what this call has decided, whatever becomes of the campaign's file meanwhile.
    os.environ[CALL] = str(THIS_CALL.file(STEPS.folder.root).absolute())
    mark(os.environ, STEPS.folder.root)
    SITE.prepare(os.environ)
    # Snakemake makes again what is older than a file that tells what is wrong with it.
    DAMAGE = find_damage(STEPS)
else:
    DAMAGE = find_damage(STEPS, look=False)

# Nothing may run beside a measurement: Snakemake cuts this number of threads, which no machine has,
# down to all cores of the machine. On a cluster `cpus_per_task` counts instead.
WHOLE_MACHINE = 4096
# The number of nodes for the ranks, where the campaign sets it.
SPREAD = {"nodes": CAMPAIGN.resources.nodes} if CAMPAIGN.resources.nodes else {}
# A trial, or a tuning, waits for the one before it where they take turns. Trials that share ranks
# always do, since two jobs at once would train the same ones.
TAKE_TURNS = "turns" in workflow.global_resources or CAMPAIGN.share_launch
IN_TURN = "--dependency=singleton" if TAKE_TURNS else ""
ASKED_OF_SITE, ASKED_OF_TRIALS = SITE.resources(EXTRA), SITE.resources(EXTRA, IN_TURN)
SOFTWARE = config.get("software")
# Profiles, plans and tunings come before the first trial, so that no contestant misses its turn.
BEFORE_TRIALS = len(STEPS.trials) + 1


# These take seconds each, so the driver runs them itself.
localrules:
    all,
    environment,
    plan,
    summary,
    report,
    expectations,


rule all:
    default_target: True
    input:
        # Asked for by name, since the report of an unfinished campaign must not pass for the whole,
        # nor that of another file for the one of this.
        ASKED,
        EVERY_RUN,
        STEPS.folder.report,
        f"{ROOT}/expectations.json",


rule environment:
    output:
        STEPS.folder.environment,
        touch(ASKED),
    log:
        f"{ROOT}/provenance/environment.log",
    conda:
        SOFTWARE
    params:
        folder=lambda wildcards: ROOT,
    shell:
        "python -m hpc_lpm campaign environment {params.folder:q} > {log:q} 2>&1"


rule profile_alone:
    input:
        lambda wildcards: DAMAGE.of_file(f"{ROOT}/profiles/{wildcards.profile}.json"),
    output:
        f"{ROOT}/profiles/{{profile}}.json",
    log:
        f"{ROOT}/profiles/{{profile}}.log",
    wildcard_constraints:
        profile=any_of(PROFILED_ALONE),
    priority: BEFORE_TRIALS
    conda:
        SOFTWARE
    threads: WHOLE_MACHINE
    resources:
        **ASKED_OF_SITE,
        **SITE.memory_resources(
            mem_mb_per_cpu=CAMPAIGN.resources.memory_megabytes or UNPROFILED_MEGABYTES
        ),
        cpus_per_task=1,
        runtime=CAMPAIGN.resources.runtime_minutes or UNPROFILED_MINUTES,
    params:
        folder=lambda wildcards: ROOT,
        arguments=lambda wildcards: STEPS.profiles[wildcards.profile].arguments,
    shell:
        "python -m hpc_lpm campaign launch {params.folder:q} --ranks 1 --log {log:q} -- {params.arguments:q}"


rule profile:
    input:
        lambda wildcards: DAMAGE.of_file(f"{ROOT}/profiles/{wildcards.profile}.json"),
    output:
        f"{ROOT}/profiles/{{profile}}.json",
    log:
        f"{ROOT}/profiles/{{profile}}.log",
    wildcard_constraints:
        profile=any_of(PROFILED_TOGETHER),
    priority: BEFORE_TRIALS
    conda:
        SOFTWARE
    threads: WHOLE_MACHINE
    resources:
        **SPREAD,
        **ASKED_OF_SITE,
        **SITE.memory_resources(
            mem_mb_per_cpu=CAMPAIGN.resources.memory_megabytes or UNPROFILED_MEGABYTES
        ),
        mpi=CAMPAIGN.launcher.mpi,
        tasks=lambda wildcards: STEPS.profiles[wildcards.profile].ranks,
        cpus_per_task=1,
        runtime=CAMPAIGN.resources.runtime_minutes or UNPROFILED_MINUTES,
    params:
        folder=lambda wildcards: ROOT,
        arguments=lambda wildcards: STEPS.profiles[wildcards.profile].arguments,
    shell:
        "python -m hpc_lpm campaign launch {params.folder:q} --ranks {resources.tasks} --mpi {resources.mpi}"
        " --log {log:q} -- {params.arguments:q}"


rule plan:
    input:
        lambda wildcards: STEPS.plans[wildcards.plan].inputs,
        lambda wildcards: DAMAGE.of_file(f"{ROOT}/plans/{wildcards.plan}.json"),
    output:
        f"{ROOT}/plans/{{plan}}.json",
    log:
        f"{ROOT}/plans/{{plan}}.log",
    wildcard_constraints:
        plan=any_of(STEPS.plans),
    priority: BEFORE_TRIALS
    conda:
        SOFTWARE
    params:
        folder=lambda wildcards: ROOT,
        arguments=lambda wildcards: STEPS.plans[wildcards.plan].arguments,
    shell:
        "python -m hpc_lpm campaign launch {params.folder:q} --ranks 1 --outside --log {log:q} -- {params.arguments:q}"


rule tune_alone:
    input:
        lambda wildcards: STEPS.tunings[wildcards.tuned].inputs,
        lambda wildcards: DAMAGE.of_file(f"{ROOT}/tuned/{wildcards.tuned}.json"),
    output:
        f"{ROOT}/tuned/{{tuned}}.json",
    log:
        f"{ROOT}/tuned/{{tuned}}.log",
    wildcard_constraints:
        tuned=any_of(TUNED_ALONE),
    priority: BEFORE_TRIALS
    conda:
        SOFTWARE
    threads: WHOLE_MACHINE
    resources:
        **ASKED_OF_TRIALS,
        **SITE.memory_resources(
            mem_mb_per_cpu=lambda wildcards: STEPS.tuning_request(wildcards.tuned).core_megabytes(
                STEPS.tuning_threads(wildcards.tuned)
            )
        ),
        cpus_per_task=lambda wildcards: STEPS.tuning_threads(wildcards.tuned),
        runtime=lambda wildcards: STEPS.tuning_request(wildcards.tuned).minutes,
        turns=1,
    params:
        folder=lambda wildcards: ROOT,
    shell:
        "python -m hpc_lpm campaign tune {params.folder:q} {wildcards.tuned:q}"
        " --log {log:q} 2>&1 | tee {log:q}"


rule tune_ranks:
    input:
        lambda wildcards: STEPS.tunings[wildcards.tuned].inputs,
        lambda wildcards: DAMAGE.of_file(f"{ROOT}/tuned/{wildcards.tuned}.json"),
    output:
        f"{ROOT}/tuned/{{tuned}}.json",
    log:
        f"{ROOT}/tuned/{{tuned}}.log",
    wildcard_constraints:
        tuned=any_of(TUNED_TOGETHER),
    priority: BEFORE_TRIALS
    conda:
        SOFTWARE
    threads: WHOLE_MACHINE
    resources:
        **SPREAD,
        **ASKED_OF_TRIALS,
        **SITE.memory_resources(
            mem_mb_per_cpu=lambda wildcards: STEPS.tuning_request(wildcards.tuned).core_megabytes(
                STEPS.tuning_threads(wildcards.tuned)
            )
        ),
        mpi=CAMPAIGN.launcher.mpi,
        tasks=lambda wildcards: STEPS.tunings[wildcards.tuned].ranks,
        cpus_per_task=lambda wildcards: STEPS.tuning_threads(wildcards.tuned),
        runtime=lambda wildcards: STEPS.tuning_request(wildcards.tuned).minutes,
        turns=1,
    params:
        folder=lambda wildcards: ROOT,
    shell:
        "python -m hpc_lpm campaign tune {params.folder:q} {wildcards.tuned:q} --mpi {resources.mpi}"
        " --log {log:q} 2>&1 | tee {log:q}"


rule train_alone:
    input:
        lambda wildcards: DAMAGE.of_trial(TRIALS[wildcards.run]),
        # A plan that is made again is no reason to train again: it follows from measured times.
        needed=lambda wildcards: map(ancient, STEPS.waits_for(TRIALS[wildcards.run].name)),
    output:
        [f"{ROOT}/runs/{{run}}/{file}" for file in STEPS.run_files],
    log:
        f"{ROOT}/runs/{{run}}/train.log",
    wildcard_constraints:
        run=any_of(ALONE),
    # Contestants take turns (A B C A B C), because a machine's speed drifts.
    priority: lambda wildcards: len(TRIALS) - TRIALS[wildcards.run].number
    conda:
        SOFTWARE
    threads: WHOLE_MACHINE
    resources:
        **ASKED_OF_TRIALS,
        **SITE.memory_resources(
            mem_mb_per_cpu=lambda wildcards, input: STEPS.request(
                TRIALS[wildcards.run].name
            ).core_megabytes(STEPS.settings(TRIALS[wildcards.run].name).threads)
        ),
        cpus_per_task=lambda wildcards: STEPS.settings(TRIALS[wildcards.run].name).threads,
        runtime=lambda wildcards, input: STEPS.request(TRIALS[wildcards.run].name).minutes,
        attempt=lambda wildcards, attempt: attempt,
        turns=1,
    params:
        folder=lambda wildcards: ROOT,
        trial=lambda wildcards: TRIALS[wildcards.run].name,
        arguments=lambda wildcards: STEPS.runs[TRIALS[wildcards.run].name].arguments,
    shell:
        "exec python -m hpc_lpm campaign launch {params.folder:q} --ranks 1 --trial {params.trial:q}"
        " --attempt {resources.attempt} --log {log:q} -- {params.arguments:q}"


rule train_ranks:
    input:
        lambda wildcards: DAMAGE.of_trial(TRIALS[wildcards.run]),
        # A plan that is made again is no reason to train again: it follows from measured times.
        needed=lambda wildcards: map(ancient, STEPS.waits_for(TRIALS[wildcards.run].name)),
    output:
        [f"{ROOT}/runs/{{run}}/{file}" for file in STEPS.run_files],
    log:
        f"{ROOT}/runs/{{run}}/train.log",
    wildcard_constraints:
        run=any_of(TOGETHER),
    priority: lambda wildcards: len(TRIALS) - TRIALS[wildcards.run].number
    conda:
        SOFTWARE
    threads: WHOLE_MACHINE
    resources:
        **SPREAD,
        **ASKED_OF_TRIALS,
        **SITE.memory_resources(
            mem_mb_per_cpu=lambda wildcards, input: STEPS.request(
                TRIALS[wildcards.run].name
            ).core_megabytes(STEPS.settings(TRIALS[wildcards.run].name).threads)
        ),
        mpi=CAMPAIGN.launcher.mpi,
        tasks=lambda wildcards: TRIALS[wildcards.run].processes,
        cpus_per_task=lambda wildcards: STEPS.settings(TRIALS[wildcards.run].name).threads,
        runtime=lambda wildcards, input: STEPS.request(TRIALS[wildcards.run].name).minutes,
        attempt=lambda wildcards, attempt: attempt,
        turns=1,
    params:
        folder=lambda wildcards: ROOT,
        trial=lambda wildcards: TRIALS[wildcards.run].name,
        arguments=lambda wildcards: STEPS.runs[TRIALS[wildcards.run].name].arguments,
    shell:
        "exec python -m hpc_lpm campaign launch {params.folder:q} --ranks {resources.tasks} --mpi {resources.mpi}"
        " --trial {params.trial:q} --attempt {resources.attempt} --log {log:q} -- {params.arguments:q}"


rule summary:
    input:
        ASKED,
        EVERY_RUN,
    output:
        f"{ROOT}/summary.csv",
        f"{ROOT}/summary.parquet",
        f"{ROOT}/statistics.csv",
        STEPS.folder.launches,
        STEPS.folder.provenance,
    log:
        f"{ROOT}/provenance/summary.log",
    conda:
        SOFTWARE
    params:
        folder=lambda wildcards: ROOT,
    shell:
        "python -m hpc_lpm campaign summary {params.folder:q} > {log:q} 2>&1"


rule report:
    input:
        STEPS.folder.environment,
        rules.summary.output,
    output:
        STEPS.folder.report,
        STEPS.folder.crate,
        directory(STEPS.folder.figures),
    log:
        f"{ROOT}/provenance/report.log",
    conda:
        SOFTWARE
    params:
        folder=lambda wildcards: ROOT,
    shell:
        "python -m hpc_lpm report {params.folder:q} 2>&1 | tee {log:q}"


rule expectations:
    input:
        f"{ROOT}/summary.csv",
        STEPS.folder.report,
    output:
        f"{ROOT}/expectations.json",
    log:
        f"{ROOT}/provenance/expectations.log",
    conda:
        SOFTWARE
    params:
        folder=lambda wildcards: ROOT,
    shell:
        "python -m hpc_lpm campaign expectations {params.folder:q} --out {output:q} 2>&1 | tee {log:q}"


onstart:
    executor = getattr(workflow.scheduler, "_executor", None)
    keep_jobs(executor)
    try:
        # Keep the lock as long as this driver lives.
        LOCK = take_over(
            STEPS.folder.root,
            # The Slurm executor gives all its jobs one name; other executors give none.
            Driver.here(getattr(executor, "run_uuid", None)),
            print,
        )
        THIS_CALL.begin(STEPS.folder.root)
    except InputError as error:
        raise WorkflowError(str(error))
    training = [
        TRIALS[job.wildcards.run].name
        for job in workflow.dag.needrun_jobs()
        if job.rule.name in ("train_alone", "train_ranks")
    ]
    for line in describe_beginning(STEPS, THIS_CALL.identities, training, DAMAGE.trials):
        print(line, flush=True)
    for absent in STEPS.absent:
        print(f"{absent.sentence()}.", flush=True)


onerror:
    # Report the trials that did finish; the report names the missing ones, and fails for them.
    if Path(STEPS.folder.campaign).exists() and not all(map(os.path.exists, EVERY_RUN)):
        shell("python -m hpc_lpm report {ROOT:q} || true")
