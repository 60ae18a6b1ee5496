"""Whatever is edited between two calls, every reported run has the settings of the report.

Nothing is trained: a stand-in writes down what a trial would have read when it was trained. What a
trial depends on is told by the test itself, from the edited file and the files that it names.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_lpm.campaign.calls import Call
from hpc_lpm.campaign.config import read_campaign
from hpc_lpm.campaign.damage import damaged_trials
from hpc_lpm.campaign.fingerprints import MEMORY, Fingerprints
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identities import identities_of
from hpc_lpm.campaign.identity import IDENTITY
from hpc_lpm.campaign.runs import read_runs
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import Trial, trials_of
from hpc_lpm.engine.result import RunResult

EDITS = 500
Key = tuple[str, ...]

START = {
    "name": "edited",
    "models": ["own_net:net"],
    "datasets": ["text:corpus.txt"],
    "strategies": ["sequential", {"fbp": {"name": "live", "weights": "live"}}],
    "optimizer": {"name": "momentum", "lr": 0.1},
    "steps": 2,
    "seeds": [0, 1],
}
FILES = {
    "own_net.py": ["from own_part import width\n", "from own_part import width  # wider\n"],
    "own_part.py": ["width = 4\n", "width = 8\n", "width = 8  # the same, who knows\n"],
    "corpus.txt": ["some text " * 50, "more text " * 50],
    "start.safetensors": ["a", "b"],
}
# What the value of a key may be edited to; None takes the key out of the file.
COMPUTING: dict[str, list[Any]] = {
    "optimizer": [{"lr": 0.1}, {"lr": 0.01}, {"name": "sgd", "lr": 0.1}, {"weight_decay": 0.1}],
    "learning_rate": [None, {"warmup_steps": 1}, {"schedule": "cosine"}],
    "batch_size": [32, 64],
    "micro_batches": [2, 4],
    "steps": [2, 3],
    "clip_norm": [None, 1.0],
    "threads": [None, 2],
    "precision": [None, "bf16"],
    "discard_steps": [None, 1],
    "init_from": [None, "start.safetensors"],
    "models": [["own_net:net"], ["own_net:net,width=6"], ["mlp"], ["mlp", "own_net:net"]],
}
OF_RANKS: dict[str, list[Any]] = {
    "launcher": [None, {"options": ["--bind-to", "core"]}],
    "planners": [None, ["uniform"], ["lpm", "uniform"]],
    "cut_only_at": [None, ["fc*"]],
}
GROWING: dict[str, list[Any]] = {
    "seeds": [[0], [0, 1], [1, 2]],
    "repeats": [None, 2],
    "strategies": [
        ["sequential"],
        ["sequential", {"fbp": {"name": "live", "weights": "live"}}],
        ["sequential", {"fbp": {"name": "live", "weights": "replay"}}, "1f1b"],
        [{"sequential": {"again": 1}}, {"fbp": {"name": "live", "lead": 2}}],
        [{"sequential": {"optimizer": {"lr": 0.3}}}, {"fbp": {"name": "live"}}],
    ],
}
FREE: dict[str, list[Any]] = {
    "resources": [None, {"memory_megabytes": 900}, {"runtime_minutes": 9}],
    "receive_timeout_seconds": [None, 60],
    "checkpoint_epochs": [None, 2],
    "metrics": [None, ["test_accuracy"]],
    "keep": [None, ["weights"]],
    "restarts": [None, 0],
    "elastic": [None, True],
}


class Stand:
    """A campaign that is edited again and again in the current directory."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.document: dict[str, Any] = {**START}
        self.root = Path("results") / "edited"
        self.trained: dict[Path, Key] = {}
        self.trainings = 0
        self.waiting: list[str] = []
        for name, texts in FILES.items():
            Path(name).write_text(texts[0])

    def edit(self) -> None:
        """Edit the file, or one that it names, or harm the results."""
        kinds: list[Callable[[], None]] = [self._edit_key] * 12 + [self._edit_file] * 4
        self.chance.choice([*kinds, self._harm, self._tamper, self._copy])()

    def _edit_key(self) -> None:
        values = {**COMPUTING, **OF_RANKS, **GROWING, **FREE}
        # Every key in turn, in a new order every time.
        self.waiting = self.waiting or self.chance.sample(list(values), len(values))
        key = self.waiting.pop()
        now = self.document.pop(key, None)
        value = self.chance.choice([value for value in values[key] if value != now])
        if value is not None:
            self.document[key] = value

    def _edit_file(self) -> None:
        name = self.chance.choice(list(FILES))
        Path(name).write_text(self.chance.choice(FILES[name]))

    def _results(self) -> list[Path]:
        return sorted(self.root.glob("runs/*/result.json"))

    def _harm(self) -> None:
        if found := self._results():
            path = self.chance.choice(found)
            path.write_bytes(path.read_bytes()[: self.chance.choice([0, 1, 100])])
            self.trained.pop(path.parent, None)

    def _tamper(self) -> None:
        if found := [path for path in self._results() if path.parent in self.trained]:
            path = self.chance.choice(found)
            document = json.loads(path.read_text())
            document["settings"]["optimizer"]["lr"] = 0.7
            path.write_text(json.dumps(document))
            self.trained.pop(path.parent)

    def _copy(self) -> None:
        good = [path for path in self._results() if path.parent in self.trained]
        others = [path for path in self._results() if path not in good[:1]]
        if good and others:
            target = self.chance.choice(others)
            target.write_bytes(good[0].read_bytes())
            # Those of other repeats are alike but for the time.
            if self.trained.get(target.parent) != self.trained[good[0].parent]:
                self.trained.pop(target.parent, None)

    def call(self) -> list[str]:
        """Do what a call of Snakemake does, and return the names of the trials that it trained."""
        Path("edited.json").write_text(json.dumps(self.document))
        campaign = read_campaign(Path("edited.json"))
        plain = CampaignFolder(self.root)
        identities = identities_of(Steps(campaign, plain), Fingerprints(self.root / MEMORY))
        call = Call.of(campaign, identities)
        call.begin(self.root)
        steps = call.steps(Path("results"))
        harmed = damaged_trials(steps)
        missing = [
            name
            for name, trial in steps.trials.items()
            if name in harmed or not (steps.folder.run(trial) / "result.json").exists()
        ]
        for name in missing:
            self._train(steps, steps.trials[name])
            call.identities.runs[name].write(steps.folder.run(name) / IDENTITY)
        return missing

    def _train(self, steps: Steps, trial: Trial) -> None:
        folder = steps.folder.run(trial)
        RunResult(
            strategy=trial.strategy,
            model=trial.model,
            dataset=trial.dataset,
            planner=trial.planner,
            seed=trial.seed,
            ranks=trial.ranks,
            samples_per_second=1.0,
            step_seconds=[1.0],
            training_seconds=1.0,
            idle_share=[0.0] * trial.ranks,
            peak_memory_bytes=[1] * trial.ranks,
            bytes_sent=[0] * trial.ranks,
            train_loss=[1.0],
            test_accuracy=[0.5],
            weights_sha256="",
            cuts=[0, 1],
            settings=steps.settings(trial.name).model_dump(mode="json"),
            environment={},
        ).write(folder / "result.json")
        self.trained[folder] = self.key(trial)
        self.trainings += 1

    def key(self, trial: Trial) -> Key:
        """Return all that a trial depends on, as this test understands the file."""
        whole: dict[str, Any] = {
            "optimizer": {"name": "momentum", "lr": 0.1, "weight_decay": 0.0},
            "batch_size": 64,
            "micro_batches": 4,
            "launcher": {"options": None},
        }
        for key, value in self.document.items():
            whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
        own = next(
            dict(settings)
            for entry in self.document["strategies"]
            for name, settings in _entries(entry)
            if settings.get("name", name) == trial.contestant
        )
        own.pop("again", None)
        whole["optimizer"] = {**whole["optimizer"], **own.pop("optimizer", {})}
        depends = {key: whole.get(key) for key in COMPUTING if key != "models"}
        if trial.ranks > 1:
            depends |= {key: whole.get(key) for key in ("launcher", "cut_only_at")}
        if trial.strategy == "fbp":
            depends |= {"weights": "live", "lead": None, **own}
        named = ["corpus.txt"]
        named += ["own_net.py", "own_part.py"] if trial.model.startswith("own_net") else []
        named += ["start.safetensors"] if self.document.get("init_from") else []
        contents = {name: Path(name).read_text() for name in named}
        which = (trial.name, trial.strategy, trial.model, trial.dataset)
        return (*which, json.dumps([depends, contents], sort_keys=True))


def _entries(entry: str | dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return list(entry.items()) if isinstance(entry, dict) else [(entry, {})]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: None)  # nothing here must outlive a power cut
    return Stand(random.Random(14))


def test_every_reported_run_has_the_settings_of_the_report(stand: Stand) -> None:
    known: set[Key] = set()
    kept = 0
    for number in range(EDITS):
        stand.edit()
        before = set(stand.trained.values())
        trained = stand.call()
        folder = CampaignFolder.at(stand.root)
        campaign = folder.read_campaign()
        runs, missing = read_runs(campaign, folder, trials_of(campaign))
        assert not missing, (number, missing)
        assert len(runs) == len(trials_of(campaign))
        for run in runs:
            # It was trained with what the file says now, and not again without need.
            assert stand.trained[run.folder] == stand.key(run.trial), number
            known_before = stand.key(run.trial) in before
            assert (run.trial.name in trained) is not known_before, (number, run.trial.name)
            kept += known_before
        known |= set(stand.trained.values())
    # Edits did something, and not everything.
    assert min(len(known), stand.trainings, kept) > EDITS / 2


def test_results_that_were_harmed_are_not_reported(stand: Stand) -> None:
    stand.call()
    for _ in range(60):
        stand.chance.choice([stand._harm, stand._tamper, stand._copy])()
        folder = CampaignFolder.at(stand.root)
        campaign = folder.read_campaign()
        runs, missing = read_runs(campaign, folder, trials_of(campaign))
        assert {run.folder for run in runs} == set(stand.trained)
        assert all(each.refused for each in missing)
        if not runs:
            stand.call()
