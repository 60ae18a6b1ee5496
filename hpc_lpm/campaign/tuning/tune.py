"""Searches for the best settings of a contestant: plans and short trainings within a budget."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_lpm.campaign.contestants import contestant_settings
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.campaign.tuning.candidates import Candidate, candidates_for, candidates_of
from hpc_lpm.campaign.tuning.halving import Standing, halve, ranking
from hpc_lpm.campaign.tuning.short_trainings import STEPS, Asked, Progress
from hpc_lpm.campaign.tuning.tuned import NOT_REACHED, TriedCandidate, Tuned
from hpc_lpm.cluster.allocation import check_allocation, signals_of_job_script, with_allocation
from hpc_lpm.cluster.container import Container
from hpc_lpm.cluster.launchers import launcher_options, rank_command, rank_environment
from hpc_lpm.cluster.supervisor import supervise
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.errors import EXIT_INTERRUPTED, InputError
from hpc_lpm.planning.api import plan
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import Profile

PATIENCE_SECONDS = 120.0
"""How long a rank of a short training waits for a neighbour: a candidate that hangs has failed."""


class _InterruptedError(Exception):
    """A signal has ended the tuning, which starts anew when it is called again."""


def tune(steps: Steps, name: str, mpi: str, log: Path, say: Callable[[str], None]) -> int:
    """Search for the best settings of a contestant, keep what was found, and return an exit code.

    The record and, where the contestant needs one, the plan of its trials are left in the folder of
    the campaign. A contestant of which no candidate can be trained keeps its settings: its trials
    will say why they fail.

    Args:
        steps: the campaign.
        name: the tuning.
        mpi: what starts the ranks.
        log: the file that their output goes to.
        say: called with each line for the user.

    Raises:
        InputError: if there is no such tuning, the ranks cannot be started, or a plan cannot be
            made at the contestant's own settings.
    """
    trial = steps.tuned_trial(name)
    tuning = steps.tuning(trial) if trial else None
    if trial is None or tuning is None:
        raise InputError(
            f"the campaign has no tuning {name!r}, accepted are {', '.join(steps.tunings)}."
        )
    began = time.monotonic()
    steps.folder.root.mkdir(parents=True, exist_ok=True)
    # Where the ranks of other nodes see it too.
    with tempfile.TemporaryDirectory(dir=steps.folder.root, prefix=".tuning-") as folder:
        search = _Search(steps, trial, mpi, log, Path(folder), say)
        try:
            standings = halve(
                len(search.candidates),
                search.measure,
                search.score,
                tuning.budget_seconds,
                lambda: search.trained_seconds,
            )
        except _InterruptedError:
            return EXIT_INTERRUPTED
        best = next(iter(ranking(standings, search.score)), 0)
        if trial.planner:
            search.plan_of(best).write(steps.folder.plan(trial))
    tuned = Tuned(
        contestant=trial.contestant,
        model=trial.model,
        dataset=trial.dataset,
        planner=trial.planner,
        budget_seconds=tuning.budget_seconds,
        trained_seconds=search.trained_seconds,
        seconds=time.monotonic() - began,
        candidates=tuple(search.tried(n, standing) for n, standing in enumerate(standings)),
        chosen=best,
    )
    tuned.write(steps.folder.tuned(trial))
    say(
        f"{trial.contestant} on {trial.model} trains {tuned.choice.described()}, the best of "
        f"{sum(each.steps > 0 for each in tuned.candidates)} tried in {tuned.seconds:.0f} s"
    )
    return 0


def short_settings(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings of a short training as a document, without a plan of its own.

    What is said of a whole run would be refused for so few steps, or be all that is trained in
    them: a warm-up, a synchronous head and tail, the steps of a trace, the return to a checkpoint.
    """
    rate, document = settings.learning_rate, settings.model_dump(mode="json")
    warmup = min(rate.warmup_steps, STEPS - 1)
    return {
        **document,
        "epochs": None,
        "steps": STEPS,
        "checkpoint_epochs": 0,
        "checkpoint_steps": 0,
        "keep_best": False,
        "evaluate_every": 0,
        "patience": 0,
        "tracker": (),
        "drain_at": (),
        "trace_from": None,
        "non_finite": "stop" if settings.non_finite == "rewind" else settings.non_finite,
        "learning_rate": {**rate.model_dump(mode="json"), "warmup_steps": warmup},
        **{name: 0 for name in ("synchronous_head", "synchronous_tail") if name in document},
        "receive_timeout_seconds": min(PATIENCE_SECONDS, settings.receive_timeout_seconds),
    }


class _Search:
    """The candidates of one contestant, their plans, and the launches that train them.

    `trained_seconds` is what they have taken so far, without the starts of ranks: these take longer
    on a busy machine, and would leave less to contestants that need more of them.
    """

    def __init__(
        self,
        steps: Steps,
        trial: Trial,
        mpi: str,
        log: Path,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self._steps, self._trial, self._mpi = steps, trial, mpi
        self._log, self._folder, self._say = log, folder, say
        self._contestant = steps.contestant(trial)
        self._plans: dict[str, Plan | InputError] = {}
        self._launches = 0
        self.trained_seconds = 0.0
        self.candidates: list[Candidate] = candidates_of(steps.campaign, self._contestant)
        if profiles := [*steps.profiles_of(trial).values()]:
            layers = len(Profile.read(profiles[0]).layers)
            self.candidates = candidates_for(steps.campaign, self._contestant, layers)

    @property
    def _entry(self) -> Strategy:
        return self._contestant.entry

    def settings(self, number: int) -> TrainSettings:
        """Return the settings of a candidate's trials, without a plan."""
        return contestant_settings(
            self._steps.campaign,
            self.candidates[number].of(self._contestant),
            model=self._trial.model,
            dataset=self._trial.dataset,
            seed=self._trial.seed,
        )

    def steps_ratio(self, number: int) -> float | None:
        """Return the expected steps of a candidate over those of synchronous training."""
        return self._entry.expected_steps_ratio(
            self.settings(number),
            self._trial.ranks,
            self._trial.model,
            replicas=self._trial.replicas,
        )

    def score(self, number: int, seconds: float) -> tuple[float, ...]:
        """Return the expected time to a target; a step whose worth is unknown comes last."""
        ratio = self.steps_ratio(number)
        return (0.0, seconds * ratio) if ratio is not None else (1.0, seconds)

    def plan_of(self, number: int) -> Plan:
        """Return the plan of a candidate, made of the profile of its micro-batches.

        Raises:
            InputError: if no plan is feasible.
        """
        settings = self.settings(number)
        request: dict[str, Any] = self._steps.plan_request(self._trial, settings)
        profile = self._steps.profiles_of(self._trial)[
            max(1, settings.micro_batch_size // self._trial.replicas)
        ]
        key = json.dumps([request, str(profile)], sort_keys=True, default=str)
        if key not in self._plans:
            try:
                self._plans[key] = plan(Profile.read(profile), **request)
            except InputError as error:
                self._plans[key] = error
        found = self._plans[key]
        if isinstance(found, InputError):
            raise found
        return found

    def measure(
        self, racing: Sequence[int], turns: int, seconds: float
    ) -> dict[int, list[float] | str]:
        """Train candidates in turn: one launch for all that can share one."""
        ends = self.trained_seconds + seconds
        found: dict[int, list[float] | str] = {}
        documents: dict[int, dict[str, Any]] = {}
        for number in racing:
            try:
                documents[number] = self._document(number)
            except InputError as error:
                found[number] = str(error).rstrip(".")
        groups: dict[str, list[int]] = {}
        for number in documents:
            groups.setdefault(self._launch_key(number), []).append(number)
        waiting = list(groups.values())
        while waiting:
            group, left = waiting.pop(0), ends - self.trained_seconds
            if left <= 0:
                break
            share = left * len(group) / (len(group) + sum(map(len, waiting)))
            shared = {number: documents[number] for number in group}
            results, culprit = self._launch(shared, turns, share)
            found.update(results)
            rest = [number for number in group if number not in found]
            if culprit is not None and rest:  # they have had no part in its end
                waiting.insert(0, rest)
        return found

    def tried(self, number: int, standing: Standing) -> TriedCandidate:
        """Return the record of a candidate."""
        measured = len(standing.step_seconds)
        return TriedCandidate(
            options=dict(self.candidates[number].options),
            style=self.candidates[number].style,
            rounds=standing.rounds,
            steps=measured,
            step_seconds=standing.median_seconds if measured and not standing.failure else None,
            steps_ratio=self.steps_ratio(number),
            failure=standing.failure or (None if measured else NOT_REACHED),
        )

    def _document(self, number: int) -> dict[str, Any]:
        """Return the settings of a candidate's short trainings as a document."""
        document = short_settings(self.settings(number))
        if self._trial.planner:
            path = self._folder / f"plan-{number}.json"
            if not path.exists():
                self.plan_of(number).write(path)
            document["plan"] = str(path)
        return document

    def _launch_key(self, number: int) -> str:
        candidate = self.candidates[number]
        own = {k: v for k, v in candidate.options.items() if k in self._entry.set_once}
        return json.dumps([candidate.style, own], sort_keys=True)

    def _launch(
        self, settings: Mapping[int, dict[str, Any]], turns: int, seconds: float
    ) -> tuple[dict[int, list[float] | str], int | None]:
        """Train on ranks of one launch; also return the candidate with which it has failed."""
        self._launches += 1
        request = self._folder / f"request-{self._launches}.json"
        out = self._folder / f"progress-{self._launches}.json"
        asked = Asked(
            settings=dict(settings),
            turns=turns,
            seconds=seconds,
            parallel=self._entry.parallel,
        )
        asked.write(request)
        number = next(iter(settings))
        arguments = ("campaign", "short-trainings", str(request), "--out", str(out))
        ranks, launcher = self._trial.processes, self._steps.campaign.launcher
        given = launcher.options if launcher.mpi == self._mpi else None
        options = launcher_options(self._mpi, given, self.candidates[number].style)
        threads = self.settings(number).threads
        container = Container.of_jobs()
        if container is not None:
            container.require_installed()
        environment = rank_environment(with_allocation(os.environ), threads, container)
        check_allocation(environment, ranks)
        log = self._log.with_name(f"{self._log.stem}-{self._launches}.log")
        with signals_of_job_script():
            done = supervise(
                rank_command(arguments, ranks, self._mpi, options, environment, container),
                environment,
                ranks,
                log,
                say=lambda line: None,
                ranks_within_seconds=self._steps.campaign.receive_timeout_seconds,
            )
        if done.stopped_by is not None:
            raise _InterruptedError
        progress = (
            Progress.read(out)
            if out.exists()
            else Progress(running=number, seconds=done.seconds)  # not even started
        )
        self.trained_seconds += progress.seconds
        found: dict[int, list[float] | str] = {}
        for each in progress.trained:
            if each.refusal is not None:
                found[each.candidate] = each.refusal
            elif not isinstance(before := found.get(each.candidate, []), str):
                found[each.candidate] = [*before, *each.step_seconds]
        if done.exit_code == 0:
            return found, None
        culprit = number if progress.running is None else progress.running
        found[culprit] = f"it ended with exit code {done.exit_code}, see {log.name}"
        return found, culprit
