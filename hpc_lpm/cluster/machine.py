"""The hardware of a node, described by the node itself.

`python -m hpc_lpm.cluster.machine` writes the description as one line, so that every node of a job
can be asked through the launcher of its ranks.
"""

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from hpc_lpm.processor import processor_name
from hpc_lpm.programs import ask

MARK = "hpc-lpm-machine:"
"""Begins the line, to tell it from the launcher's own messages in the same output."""


class Machine(BaseModel):
    """The hardware and kernel of a node.

    `cores` counts those that the process may use, `gpus` are as their driver lists them, and
    `interconnects` maps ports and interfaces to the rate that their driver reports.
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
    """Describe this node."""
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
    """Return the machines described in a launcher's output, each host once, sorted by name.

    A line that is cut off, or mixed with that of another process, describes none.
    """
    found: dict[str, Machine] = {}
    for line in output.splitlines():
        _, mark, told = line.partition(MARK)
        if mark:
            with suppress(ValidationError):
                machine = Machine.model_validate_json(told)
                found[machine.host] = machine
    return [found[host] for host in sorted(found)]


def interconnects(devices: Path) -> dict[str, str]:
    """Return the rate of every InfiniBand port and network interface below `/sys/class`."""
    rates: dict[str, str] = {}
    for path in sorted(devices.glob("infiniband/*/ports/*/rate")):
        rates[f"{path.parts[-4]} port {path.parts[-2]}"] = _read(path)
    for path in sorted(devices.glob("net/*/speed")):
        speed = _read(path)
        # Virtual interfaces have no device behind them; their speed is made up, or -1.
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
    # In a single write, since all processes of a job share the pipe.
    os.write(sys.stdout.fileno(), f"{MARK}{describe_machine().model_dump_json()}\n".encode())
