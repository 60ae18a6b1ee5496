"""Writes the metadata that make the folder of a campaign an RO-Crate.

RO-Crate 1.1 with the profiles Process Run Crate 0.5 and, where the workflow was kept, Workflow Run
Crate 0.5 and Workflow RO-Crate 1.0. The files stay where they are.
"""

import json
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from hpc_lpm.campaign.crate.entities import (
    ENVIRONMENT_TERM,
    LICENSE,
    add_action,
    add_toolkit,
    add_workflow,
    timestamp,
)
from hpc_lpm.campaign.crate.executions import CAMPAIGN_FILE, Execution, executions_of
from hpc_lpm.campaign.crate.payload import PayloadFile, campaign_files, run_files
from hpc_lpm.campaign.provenance import CampaignProvenance
from hpc_lpm.campaign.results import CampaignResults
from hpc_lpm.files import write_text_atomically

VERSION = "1.1"
PROCESS_RUN = ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5")
WORKFLOW_RUN = ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5")
WORKFLOW = ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0")
TABLES = ("summary.csv", "summary.parquet", "statistics.csv", "report.html")


def write_crate(results: CampaignResults, provenance: CampaignProvenance) -> None:
    """Write ro-crate-metadata.json over the files of a campaign that are there."""
    crate = ROCrate(version=VERSION)
    crate.metadata.extra_terms.update(ENVIRONMENT_TERM)
    root = results.folder.root
    shared = campaign_files(root)
    for file in shared:
        _add_file(crate, results, file)
    for trial in results.trials:
        _add_run_folder(crate, results, trial.name)
    environment = provenance.environment or {}
    agent = _add_agent(crate, environment.get("user"))
    toolkit = add_toolkit(crate, environment)
    actions = [
        add_action(crate, execution, toolkit, agent)
        for execution in executions_of(results, provenance)
    ]
    profiles = [PROCESS_RUN]
    if results.folder.workflow.is_file() and provenance.started:
        workflow = add_workflow(crate, results.folder, environment)
        whole = _whole(results, provenance, shared)
        actions.append(add_action(crate, whole, workflow, agent))
        profiles += [WORKFLOW_RUN, WORKFLOW]
    _describe_root(crate, results, provenance, agent)
    crate.root_dataset["conformsTo"] = [_add_profile(crate, *profile) for profile in profiles]
    crate.root_dataset["mentions"] = actions
    text = json.dumps(crate.metadata.generate(), indent=2, ensure_ascii=False)
    write_text_atomically(results.folder.crate, text + "\n")


def _add_file(crate: ROCrate, results: CampaignResults, file: PayloadFile) -> Any:
    path = results.folder.root / file.path
    properties = {
        "name": file.path,
        "description": file.description,
        "encodingFormat": file.media_type,
        "contentSize": str(path.stat().st_size),
    }
    return crate.add_file(path, dest_path=file.path, properties=properties)


def _add_run_folder(crate: ROCrate, results: CampaignResults, trial: str) -> None:
    run = results.folder.run_name(trial)
    files = [_add_file(crate, results, file) for file in run_files(results.folder.root, run)]
    if files:
        properties = {"name": trial, "description": "Files of one training run", "hasPart": files}
        crate.add_dataset(results.folder.run(trial), dest_path=f"runs/{run}", properties=properties)


def _add_agent(crate: ROCrate, name: str | None) -> Any | None:
    if not name:
        return None
    properties = {"@type": "Person", "name": name}
    return crate.add(ContextEntity(crate, "#agent", properties=properties))


def _whole(
    results: CampaignResults, provenance: CampaignProvenance, shared: list[PayloadFile]
) -> Execution:
    assert provenance.started is not None
    missing = results.missing
    figures = tuple(file.path for file in shared if file.path.startswith("figures/"))
    return Execution(
        identifier="#campaign",
        name=f"Campaign {results.campaign.name}",
        description="All steps of the campaign, from its file to its report",
        started=provenance.started,
        ended=provenance.ended,
        exit_code=None,
        error=f"{len(missing)} of {len(results.runs) + len(missing)} trials are missing"
        if missing
        else None,
        objects=(CAMPAIGN_FILE,),
        results=(*TABLES, *figures),
    )


def _describe_root(
    crate: ROCrate, results: CampaignResults, provenance: CampaignProvenance, agent: Any | None
) -> None:
    campaign, root = results.campaign, crate.root_dataset
    root["name"] = f"hpc-lpm campaign {campaign.name}"
    root["description"] = (
        f"Pipeline-parallel training of {', '.join(campaign.models)} on "
        f"{', '.join(campaign.datasets)} with "
        f"{', '.join(contestant.label for contestant in campaign.contestants)}: "
        f"{len(results.runs)} of {len(results.trials)} trials finished"
    )
    if provenance.ended:
        root["datePublished"] = timestamp(provenance.ended)
    license_properties = {
        "@type": "CreativeWork",
        "name": "Apache License 2.0",
        "description": "The licence of the toolkit that wrote this folder",
        "url": LICENSE,
    }
    root["license"] = crate.add(ContextEntity(crate, LICENSE, properties=license_properties))
    if agent is not None:
        root["author"] = agent


def _add_profile(crate: ROCrate, address: str, name: str, version: str) -> Any:
    properties = {"@type": "CreativeWork", "name": name, "version": version}
    return crate.add(ContextEntity(crate, address, properties=properties))
