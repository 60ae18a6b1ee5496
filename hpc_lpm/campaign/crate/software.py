"""Describes the software that a campaign was run with: the toolkit and the workflow."""

from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from hpc_lpm import __version__
from hpc_lpm.campaign.crate.executions import CAMPAIGN_FILE
from hpc_lpm.campaign.folder import CampaignFolder

LICENSE = "https://spdx.org/licenses/Apache-2.0"
"""The licence of the toolkit, which also covers the files that it writes."""

BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"


def add_toolkit(crate: ROCrate, environment: dict[str, Any]) -> Any:
    """Add the toolkit in the version that the campaign was started with."""
    source = environment.get("git") or {}
    properties = {
        "@type": "SoftwareApplication",
        "name": "hpc-lpm",
        "softwareVersion": _version_of(source),
    }
    if source.get("revision"):
        properties["identifier"] = source["revision"]
    return crate.add(ContextEntity(crate, "#hpc-lpm", properties=properties))


def add_workflow(crate: ROCrate, folder: CampaignFolder, environment: dict[str, Any]) -> Any:
    """Add the Snakefile that the folder keeps as the main entity, with its input and output."""
    path = folder.workflow
    workflow = crate.add_workflow(
        path,
        dest_path=path.relative_to(folder.root).as_posix(),
        main=True,
        lang="snakemake",
        lang_version=(environment.get("packages") or {}).get("snakemake"),
        properties={
            "name": "The hpc-lpm campaign workflow",
            "description": "Profile, plan, train, summarise, report",
            "encodingFormat": "text/plain",
            "contentSize": str(path.stat().st_size),
            "version": _version_of(environment.get("git") or {}),
            "license": {"@id": LICENSE},
            "conformsTo": {"@id": BIOSCHEMAS},
        },
    )
    for direction, name, value in (
        ("input", "campaign", CAMPAIGN_FILE),
        ("output", "summary", "summary.csv"),
    ):
        file = crate.get(value)
        if file is not None:
            parameter = crate.add_formal_parameter(name, "File", identifier=f"#parameter/{name}")
            parameter["workExample"] = file
            file["exampleOfWork"] = parameter
            workflow[direction] = parameter
    return workflow


def _version_of(source: dict[str, Any]) -> str:
    if not source.get("revision"):
        return __version__
    changes = f", with changes {source['diff_sha256']}" if source.get("dirty") else ""
    return f"{__version__}, git {source['revision']}{changes}"
