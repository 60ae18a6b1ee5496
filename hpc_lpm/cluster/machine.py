"""The hardware of a node, as the node itself tells it.

`python -m hpc_lpm.cluster.machine` writes it as one line, so that every node of a job can be asked
through the launcher of its ranks.
"""

import os
import platform
import sys
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from hpc_lpm.processor import processor_name
from hpc_lpm.programs import ask

MARK = "hpc-lpm-machine:"
"""Starts the line, since a launcher's own messages may share its output."""


class Machine(BaseModel):
    """A node; `cores` are those that this process may use, `gpus` what their driver lists.

    `interconnects` maps ports and interfaces to the rate that their driver tells.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    kernel: str
    processor: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    interconnects: dict[str, str] = {}


def describe_machine() -> Machine:
    """Return what this node is."""
    return Machine(
        host=platform.node(),
        kernel=platform.release(),
        processor=processor_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        gpus=_gpus(),
        interconnects=interconnects(Path("/sys/class")),
    )


def machines_in(output: str) -> list[Machine]:
    """Return the machines in the output of a launcher, each host once, in order of their names."""
    lines = (line.partition(MARK)[2] for line in output.splitlines() if MARK in line)
    found = {machine.host: machine for machine in map(Machine.model_validate_json, lines)}
    return [found[host] for host in sorted(found)]


def interconnects(devices: Path) -> dict[str, str]:
    """Return the rate of every InfiniBand port and network interface below `/sys/class`."""
    rates: dict[str, str] = {}
    for path in sorted(devices.glob("infiniband/*/ports/*/rate")):
        rates[f"{path.parts[-4]} port {path.parts[-2]}"] = _read(path)
    for path in sorted(devices.glob("net/*/speed")):
        speed = _read(path)
        # Virtual interfaces have no device behind them and make their speed up, or say -1.
        if speed.isdigit() and (path.parent / "device").exists():
            rates[path.parts[-2]] = f"{speed} Mbit/s"
    return {name: rate for name, rate in rates.items() if rate}


def _gpus() -> tuple[str, ...]:
    query = "--query-gpu=name,memory.total,driver_version"
    answer = ask(["nvidia-smi", query, "--format=csv,noheader"])
    return tuple(answer.output.splitlines()) if answer.done else ()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


if __name__ == "__main__":
    # In one piece: the processes of a job write into the same pipe.
    os.write(sys.stdout.fileno(), f"{MARK}{describe_machine().model_dump_json()}\n".encode())
