"""Whether all ranks of a run were asked for the same: options, plan and modules of the user's."""

from pathlib import Path

from hpc_lpm.engine.job import Job
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.options import flatten_settings, option_name
from hpc_lpm.same_program import HOST, check_same, describe_program, file_sha256
from hpc_lpm.sources import module_named_in, source_files

_PLACES = {"data_dir", "plan"}
"""Settings that may be another path on each node, for the same content."""

_FIRST = ("strategy", "model", "dataset")
"""Settings that others depend on."""


def check_same_request(job: Job, settings: TrainSettings, out: Path, *, resume: bool) -> None:
    """Compare what the ranks were asked for, before any of them acts on it (collective).

    Raises:
        InputError: on every rank, if one was given other options, another plan or other source
            files of the user's own modules.
    """
    document = flatten_settings(settings.model_dump(mode="json"))
    options = {name: document[name] for name in _FIRST} | document
    options |= {"out": str(out), "resume": resume}
    told = {HOST: describe_program()[HOST]}
    remedies: dict[str, str] = {}
    files: dict[str, Path] = {} if settings.plan is None else {"the plan": settings.plan}
    for name, value in options.items():
        if name not in _PLACES:
            option = option_name(name, TrainSettings, type(settings.own))
            told[option] = str(value)
            remedies[option] = "give all ranks the same options"
        for text in value if isinstance(value, list) else [value]:
            # What has a plain name comes with the toolkit, or with a package that is installed.
            module = module_named_in(text) if isinstance(text, str) and ":" in text else None
            sources = source_files(module) if module else {}
            files |= {f"the module {name}": path for name, path in sources.items()}
    for what, path in files.items():
        told[what] = f"the hash {file_sha256(path)}"
        remedies[what] = "copy the same file to all nodes"
    check_same(job.all_gather(told), remedies)
