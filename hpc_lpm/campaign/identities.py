"""Tells what each trial, plan and profile of a campaign is computed from."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.folder import plan_name, tuned_name
from hpc_lpm.campaign.identity import (
    Identities,
    Identity,
    NamedFiles,
    result_settings,
    settings_off,
)
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.campaign.tuning.candidates import candidates_of
from hpc_lpm.data.registry import DATASETS, dataset_files
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import parse_identifier, user_path
from hpc_lpm.models.registry import MODELS
from hpc_lpm.options import flatten_settings
from hpc_lpm.sources import module_named_in, source_files

_OF_SINGLE_RUNS = {"seed", "epochs", "steps"}
"""Settings in which the trials of a tuned contestant may differ."""


def identities_of(steps: Steps, fingerprints: Fingerprints) -> Identities:
    """Return what the trials, plans and profiles of a campaign are computed from.

    Args:
        steps: the steps of a campaign whose names have been checked.
        fingerprints: hashes the files.
    """
    campaign = steps.campaign
    files = _Files(fingerprints, campaign.data_dir)
    launcher = campaign.launcher.model_dump(mode="json")
    together = {**launcher, "nodes": campaign.resources.nodes}
    trained = {**together, **({"share_launch": True} if campaign.share_launch else {})}
    off = {name: settings_off(name) for name in {trial.strategy for trial in steps.all_trials}}
    runs: dict[str, Identity] = {}
    plans: dict[str, Identity] = {}
    profiles: dict[str, Identity] = {}
    tuned: dict[str, Identity] = {}
    for trial in steps.all_trials:
        settings = steps.settings(trial.name)
        data = files.of_data(trial, settings)
        used = data | files.named_in(_naming_values(settings))
        request: dict[str, Any] = {}
        placement = trained if trial.processes > 1 else {}  # one rank needs no launcher
        searched = _tuning_of(steps, trial)
        if trial.planner:
            request = {**steps.plan_request(trial)}
            planner = files.named_in([trial.planner])
            measured: list[str] = []
            for size in steps.profiles_of(trial):
                profile = Identity.of(
                    {"arguments": _without_data_dir(steps.profile_arguments(trial, size))},
                    placement={**together, "ranks": steps.profile_ranks(trial)},
                    files=data | files.named_in([trial.model]),
                )
                profiles[steps.profile_name(trial, size)] = profile
                measured.append(profile.digest)
            source = {"profiles": measured} if searched else {"profile": measured[0]}
            plans[plan_name(trial)] = Identity.of(
                {}, plan={**request, **source}, files=planner, tuning=searched
            )
            used |= planner
        counted = result_settings(settings)
        computed = {
            "plan": request,
            "placement": placement,
            "files": used,
            "tuning": searched,
            "off": off[trial.strategy],
        }
        runs[trial.name] = Identity.of(counted, **computed)
        if searched:
            shared = {k: v for k, v in counted.items() if k not in _OF_SINGLE_RUNS}
            tuned[tuned_name(trial)] = Identity.of(shared, **computed)
    return Identities(runs=runs, plans=plans, profiles=profiles, tuned=tuned, files=files.found)


def _tuning_of(steps: Steps, trial: Trial) -> dict[str, Any]:
    """Return what a trial's tuning searches and for how long, nothing if it is not tuned."""
    tuning = steps.tuning(trial)
    if tuning is None:
        return {}
    candidates = candidates_of(steps.campaign, steps.contestant(trial))
    return {
        **tuning.model_dump(mode="json"),
        "candidates": [[dict(each.options), each.style] for each in candidates],
    }


class _Files:
    """Finds the files that settings name, and hashes each once."""

    def __init__(self, fingerprints: Fingerprints, data_dir: Path | None) -> None:
        self.found: dict[str, NamedFiles] = {}
        self._data_dir = data_dir
        self._fingerprints = fingerprints
        self._data: dict[str, dict[str, str]] = {}
        self._named: dict[object, dict[str, str]] = {}

    def of_data(self, trial: Trial, settings: TrainSettings) -> dict[str, str]:
        """Return the hashes of a trial's data, and of the modules that make them, by label."""
        folder = settings.data_dir
        # Where the data are does not matter, unless contestants are given different ones.
        elsewhere = f" in {folder}" if folder != self._data_dir else ""
        label = f"data set {trial.dataset}{elsewhere}"
        if label not in self._data:
            self._data[label] = self._find_data(label, trial.dataset, folder)
        return self._data[label]

    def _find_data(self, label: str, dataset: str, folder: Path | None) -> dict[str, str]:
        try:
            paths = dataset_files(dataset, folder)
        except InputError:
            return {label: f"not on the machine of the driver, in {folder}"}
        if paths is not None:
            hashes = self._hash(label, paths)
        else:
            # A data set of the user's own may read anything below its folder.
            hashes = self._hash(label, [folder] if folder else [], listed=True)
        if DATASETS.comes_with_toolkit(parse_identifier(dataset).name):
            return hashes
        return hashes | self.named_in([dataset])

    def named_in(self, values: Iterable[object]) -> dict[str, str]:
        """Return the hashes of the modules and files that values of settings name, by label."""
        used: dict[str, str] = {}
        for value in values:
            if value not in self._named:
                self._named[value] = self._find(value)
            used |= self._named[value]
        return used

    def _find(self, value: object) -> dict[str, str]:
        used: dict[str, str] = {}
        for path in _paths_in(value):
            used |= self._hash(f"{'folder' if path.is_dir() else 'file'} {path}", [path])
        module = _module_in(str(value))
        if module is not None:
            for name, path in source_files(module).items():
                used |= self._hash(f"module {name}", [path])
        return used

    def _hash(self, label: str, paths: Iterable[Path], *, listed: bool = False) -> dict[str, str]:
        if label not in self.found:
            self.found[label] = NamedFiles.hashed(paths, self._fingerprints, listed=listed)
        return {label: self.found[label].sha256}


def _naming_values(settings: TrainSettings) -> list[object]:
    """Return the texts and paths among the settings that results depend on, but for the data set.

    They may name modules and files.
    """
    counted = result_settings(settings).keys() - {"dataset"}
    found: list[object] = []
    for name, value in flatten_settings(settings.model_dump()).items():
        if name in counted:
            each = value if isinstance(value, list | tuple) else [value]
            found += [one for one in each if isinstance(one, str | Path)]
    return found


def _module_in(text: str) -> str | None:
    name = text.partition(",")[0].partition(":")[0]
    if MODELS.comes_with_toolkit(name) or DATASETS.comes_with_toolkit(name):
        return None  # what follows the colon is a path
    return module_named_in(text)


def _paths_in(value: object) -> list[Path]:
    """Return the files and folders that a setting names: as a whole, or in an identifier."""
    if isinstance(value, Path):
        return [value] if value.exists() else []
    text = str(value)
    try:
        parsed = parse_identifier(text)
    except InputError:
        return []
    named = [text, parsed.argument or "", *parsed.options.values()]
    # A plain word may be the name of a file by accident.
    paths = [user_path(each) for each in named if {".", "/"} & set(each)]
    return [path for path in paths if path.is_file() or (path.is_dir() and "/" in str(path))]


def _without_data_dir(arguments: tuple[str, ...]) -> list[str]:
    """Leave out where the data are, since what they are counts."""
    kept = list(arguments)
    if "--data-dir" in kept:
        at = kept.index("--data-dir")
        del kept[at : at + 2]
    return kept
