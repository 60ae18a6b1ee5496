"""Adds entities to a crate: executions as actions, and the software that they were run with."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from hpc_lpm import __version__
from hpc_lpm.campaign.crate.executions import CAMPAIGN_FILE, Execution
from hpc_lpm.campaign.folder import CampaignFolder

ENVIRONMENT_TERM = {"environment": "https://w3id.org/ro/terms/workflow-run#environment"}
"""A term of the Process Run Crate profile that RO-Crate 1.1 itself does not define."""

LICENSE = "https://spdx.org/licenses/Apache-2.0"
"""The licence of the toolkit, which also covers the files that it writes."""

BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"


def add_action(crate: ROCrate, execution: Execution, instrument: Any, agent: Any | None) -> Any:
    """Add an execution; files that are not in the crate are left out of it."""
    properties: dict[str, Any] = {
        "name": execution.name,
        "description": execution.description,
        "startTime": timestamp(execution.started),
        "actionStatus": "http://schema.org/FailedActionStatus"
        if execution.error
        else "http://schema.org/CompletedActionStatus",
    }
    if execution.ended:
        properties["endTime"] = timestamp(execution.ended)
    if execution.error:
        properties["error"] = execution.error
    if execution.nodes:
        properties["location"] = ", ".join(execution.nodes)
    if execution.environment:
        properties["environment"] = _plain(_values(crate, execution.environment))
    if agent is not None:
        properties["agent"] = agent
    outcomes = dict(execution.outcomes)
    if execution.exit_code is not None:
        outcomes["exit code"] = execution.exit_code
    return crate.add_action(
        instrument,
        identifier=execution.identifier,
        object=_plain([*_files(crate, execution.objects), *_values(crate, execution.parameters)]),
        result=_plain([*_files(crate, execution.results), *_values(crate, outcomes)]),
        properties=properties,
    )


def timestamp(moment: datetime) -> str:
    """Format a moment as the profile requires: in UTC, to the second, with the offset."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _plain(entities: list[Any]) -> Any:
    """Return a list, or its only element, as RO-Crate 1.1 requires."""
    return entities[0] if len(entities) == 1 else entities


def _files(crate: ROCrate, paths: Iterable[str]) -> list[Any]:
    found = (crate.get(path) for path in paths)
    return [entity for entity in found if entity is not None]


def _values(crate: ROCrate, values: Mapping[str, str | int]) -> list[Any]:
    """Return an entity for each value; runs with the same value share it."""
    entities = []
    for name, value in values.items():
        digest = hashlib.sha256(f"{name}={value}".encode()).hexdigest()[:16]
        identifier = f"#value/{digest}"
        entity = crate.get(identifier)
        if entity is None:
            properties = {"@type": "PropertyValue", "name": name, "value": value}
            entity = crate.add(ContextEntity(crate, identifier, properties=properties))
        entities.append(entity)
    return entities


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
