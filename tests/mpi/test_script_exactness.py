"""A script trains to the bits of a plain torch loop, and to those of `hpc-lpm train`."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc_lpm.engine.job import SingleProcess
from tests.mpi.ranks import PROGRAMS, run_in_ranks

pytestmark = pytest.mark.mpi

TIED = {"tied": True}
PLAIN = {"dropout": 0.3}
OF_REPLICAS = {"batch_norm": False, "dropout": 0.3}
"""Replicas have statistics of their own, which a command averages after each epoch."""
BY_SGDS_STEP = {"prediction": True, "prediction_rule": "spectrain"}
TWO, THREE = ["first"], ["norm", "middle"]


def run_scripts(ranks: int, cases: dict[str, dict], folder: Path) -> dict[str, list[dict]]:
    """Return what came out of each case on each rank."""
    folder.mkdir(exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(list(cases.values())))
    done = run_in_ranks(
        ranks, "script_cases.py", str(folder / "cases.json"), str(folder / "out.json")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(zip(cases, json.loads((folder / "out.json").read_text()), strict=True))


def run_alone(cases: dict[str, dict], folder: Path) -> dict[str, list[dict]]:
    """Return the same of this process, which is the only rank."""
    folder.mkdir()
    program = importlib.import_module("script_cases")
    job, threads = SingleProcess(), torch.get_num_threads()
    torch.set_num_threads(1)  # as ranks of tests have, which sum up in this order
    try:
        return {name: [program.ScriptCase(case, job, folder).run()] for name, case in cases.items()}
    finally:
        torch.set_num_threads(threads)


def loop(strategy: str, cuts: list[str] | None, net: dict, **more: Any) -> dict[str, Any]:
    options = {"strategy": strategy, **more.pop("options", {})}
    common = {"against": "loop", "optimizer": "adamw", "steps": 5, "rates": "linear"}
    return {**common, "net": net, "cuts": cuts, "options": options, **more}


def command(strategy: str, cuts: list[str] | None, net: dict, **more: Any) -> dict[str, Any]:
    common = {"against": "command", "optimizer": "momentum", "drains": [5]}
    named = {"rates", "optimizer", "go_on", "no_grad", "drains", "steps", "shuffles"}
    options = {name: value for name, value in more.items() if name not in named}
    given = {name: value for name, value in more.items() if name in named}
    options["strategy"] = strategy
    return {**common, "net": net, "cuts": cuts, "options": options, **given}


def check_as_command(found: dict[str, list[dict]]) -> None:
    for name, of_ranks in found.items():
        expected = of_ranks[0]["command"]
        for rank, outcome in enumerate(of_ranks):
            assert not outcome["changed"], (name, rank, outcome["changed"])
            script = dict(outcome["script"])
            if len(of_ranks) == 4 or name in ("horovod", "ddp", "fsdp"):
                script["train_loss"] = expected["train_loss"]  # of this rank's replica alone
            assert script == expected, (name, rank)


def check_as_loop(found: dict[str, list[dict]]) -> None:
    for name, of_ranks in found.items():
        assert [outcome["differ"] for outcome in of_ranks] == [[]] * len(of_ranks), name


def test_stages_of_a_script_compute_what_loop_and_command_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {
        "gpipe": loop("gpipe", TWO, TIED),
        "1f1b": loop("1f1b", TWO, {}, optimizer="momentum"),
        "naive": loop("naive", TWO, TIED, options={"micro_batches": 2}),
        "for three": loop("gpipe", TWO, TIED, drains=[2], saved=str(tmp_path / "of-two")),
    }
    as_command = {
        "replay": command(
            "fbp", TWO, {**PLAIN, "tied": True}, weights="replay", optimizer="adamw", shuffles=True
        ),
        "live": command("fbp", TWO, PLAIN, weights="live", lead=2, rates="linear", no_grad=True),
        "stash": command("fbp", TWO, PLAIN, weights="stash", rates="linear", **BY_SGDS_STEP),
        "predicted": command(
            *("fbp", TWO, {**PLAIN, "tied": True}),
            **{"weights": "live", "lead": 2, "micro_batches": 1, "prediction": True},
            **{"optimizer": "adamw", "rates": "linear", "go_on": "script"},
        ),
        "by a recipe": command(
            *("fbp", TWO, PLAIN),
            **{"weights": "live", "lead": 2, "micro_batches": 1, "recipe": "last-update"},
            **{"optimizer": "adamw"},
        ),
        "discount": command(
            "fbp", TWO, TIED, weights="live", lr_discount=True, lead=2, micro_batches=1
        ),
        "resumed": command("fbp", TWO, PLAIN, weights="live", optimizer="adamw", go_on="script"),
        "from command": command("fbp", TWO, TIED, weights="replay", lead=2, go_on="command"),
        "gpipe": command("gpipe", TWO, PLAIN, clip_norm=0.5, go_on="script", rates="linear"),
        "1f1b": command("1f1b", TWO, PLAIN, optimizer="adamw"),
        "naive": command("naive", TWO, PLAIN),
        "deepspeed": command("deepspeed-1f1b", TWO, PLAIN, rates="linear", go_on="script"),
        "torch": command("torch-1f1b", TWO, PLAIN, rates="linear", go_on="script"),
        "horovod": command("horovod", None, OF_REPLICAS, rates="linear", go_on="command"),
        "ddp": command("ddp", None, OF_REPLICAS, rates="linear", go_on="script"),
        "fsdp": command("fsdp", None, OF_REPLICAS, rates="linear", go_on="script"),
    }
    found = run_scripts(
        2, {f"loop {name}": case for name, case in plain.items()} | as_command, tmp_path
    )
    check_as_loop({name: of_ranks for name, of_ranks in found.items() if name.startswith("loop")})
    check_as_command({name: found[name] for name in as_command})
    for outcome in found["replay"]:
        orders = outcome["orders"]
        assert orders["trained"] == [orders["alone"]] * 2

    three = {
        "gpipe": loop("gpipe", THREE, TIED, loaded=str(tmp_path / "of-two")),
        "1f1b": loop("1f1b", THREE, TIED),
        "naive": loop("naive", THREE, {}),
    }
    check_as_loop(run_scripts(3, three, tmp_path / "three"))

    monkeypatch.syspath_prepend(PROGRAMS)
    alone = {
        "fbp": loop("fbp", TWO, TIED, loaded=str(tmp_path / "of-two")),
        "naive": loop("naive", THREE, {}),
    }
    check_as_loop(run_alone(alone, tmp_path / "alone"))
    net = {**PLAIN, "tied": True}
    alone = {"sequential": command("sequential", None, net, rates="linear", go_on="script")}
    check_as_command(run_alone(alone, tmp_path / "sequential"))


def test_replicas_of_a_script_compute_what_the_command_does(tmp_path: Path) -> None:
    cases = {
        "fbp": command("fbp", TWO, OF_REPLICAS, weights="replay", rates="linear", micro_batches=2),
        "gpipe": command("gpipe", TWO, OF_REPLICAS, micro_batches=2, go_on="script"),
    }
    check_as_command(run_scripts(4, cases, tmp_path))
