"""GPUs: their driver, whether torch was built to use them, and which rank sees which."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import torch

from hpc_lpm.doctor.probe_report import GpuReport, GpuSight, RankReport, by_host
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.programs import ask

NAME = "gpu"


def check_gpu(situation: Situation) -> Finding:
    """Judge what torch sees on every rank, or in this process where no ranks came."""
    ranks = situation.job.ranks if situation.job else ()
    if not ranks:
        return _judge_sight(look_at_gpus())
    for number, rank in enumerate(ranks):
        finding = _judge_sight(rank.gpu, f" for rank {number} on {rank.host}")
        if finding.verdict != "ok":
            return finding
    if not any(rank.gpu.gpus for rank in ranks):
        return _judge_sight(ranks[0].gpu)
    return _judge_differences(ranks) or _judge_sharing(ranks) or Finding(NAME, "ok", _seen(ranks))


def _judge_sight(sight: GpuSight, where: str = "") -> Finding:
    """Judge what one process sees against the driver that is there."""
    if sight.gpus:
        models = Counter(gpu.name for gpu in sight.gpus)
        shown = ", ".join(f"{count} x {name}" for name, count in models.items())
        return Finding(NAME, "ok", f"{shown}, torch {sight.torch}")
    if sight.built_for is None and sight.driver:
        return Finding(
            NAME,
            "warning",
            f"an NVIDIA driver is there{where}, but torch {sight.torch} is a build for CPUs",
            "remove .venv and run `make setup` on this machine, which then picks a CUDA build",
        )
    if not sight.driver and not sight.problem:
        return Finding(NAME, "ok", f"none; torch {sight.torch} computes on the CPU")
    hidden = sight.visible_devices
    return Finding(
        NAME,
        "warning",
        f"torch {sight.torch} finds no GPU{where}"
        + (f": {sight.problem}" if sight.problem else "")
        + ("" if hidden is None else f" (CUDA_VISIBLE_DEVICES={hidden!r})"),
        f"see what nvidia-smi says, that CUDA_VISIBLE_DEVICES hides none, and that the driver is "
        f"recent enough for {sight.built_for}; in a Slurm job ask for one (--gres=gpu:1)",
    )


def _judge_differences(ranks: tuple[RankReport, ...]) -> Finding | None:
    shown = {host: _models(local) for host, local in by_host(ranks).items()}
    blind = [f"{number} on {rank.host}" for number, rank in enumerate(ranks) if not rank.gpu.gpus]
    if blind:
        return Finding(
            NAME,
            "warning",
            f"rank {', '.join(blind)} sees no GPU, others do",
            "give every rank one (sbatch --gpus-per-task=1, or --gres=gpu:N on every node), or "
            "leave out the nodes without (sbatch --exclude)",
        )
    if len(set(shown.values())) > 1:
        nodes = "; ".join(f"{host}: {models}" for host, models in shown.items())
        return Finding(
            NAME,
            "warning",
            f"nodes differ in the GPUs that their ranks see: {nodes}",
            "ask for nodes of one kind (sbatch --constraint, --gpus-per-node with the model's "
            "name), or plan with --speeds",
        )
    return None


def _judge_sharing(ranks: tuple[RankReport, ...]) -> Finding | None:
    for host, local in by_host(ranks).items():
        taken: dict[str, list[int]] = {}
        for number, rank in local:
            taken.setdefault(rank.gpu.gpus[rank.gpu_number].uuid, []).append(number)
        for uuid, numbers in taken.items():
            if len(numbers) > 1:
                return Finding(
                    NAME,
                    "warning",
                    f"ranks {', '.join(map(str, numbers))} on {host} share one GPU ({uuid}); "
                    f"{_seen(ranks)}",
                    "start no more ranks a node than it has GPUs, ask for one a rank "
                    "(sbatch --gpus-per-task=1), and set CUDA_VISIBLE_DEVICES to all of them or "
                    "to another one for each rank",
                )
    return None


def _models(local: list[tuple[int, RankReport]]) -> str:
    """Return the models of all GPUs that the ranks of a node see together."""
    names = {gpu.uuid: gpu.name for _, rank in local for gpu in rank.gpu.gpus}
    models = Counter(names.values())
    return ", ".join(f"{count} x {name}" for name, count in sorted(models.items()))


def _seen(ranks: tuple[RankReport, ...]) -> str:
    (_, local), *others = by_host(ranks).items()
    variables = {rank.gpu.visible_devices for rank in ranks}
    shown = ", ".join(sorted(value for value in variables if value is not None)) or "unset"
    each = " on each of several nodes" if others else ""
    return f"{_models(local)}{each}, CUDA_VISIBLE_DEVICES={shown}, torch {ranks[0].gpu.torch}"


DRIVER = Path("/proc/driver/nvidia/version")

ANSWER_SECONDS = 60.0

# In a process of its own: a broken driver can hang whoever asks it.
_LIST = (
    "import json, torch; "
    "n = torch.cuda.device_count() if torch.cuda.is_available() else 0; "
    "of = [torch.cuda.get_device_properties(i) for i in range(n)]; "
    "print(json.dumps([[p.name, str(getattr(p, 'uuid', i))] for i, p in enumerate(of)]))"
)
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def look_at_gpus() -> GpuSight:
    """Return what torch sees in this process's environment."""
    built_for = torch.version.cuda or torch.version.hip
    gpus: tuple[GpuReport, ...] = ()
    problem = ""
    if built_for is not None:
        answer = ask([sys.executable, "-c", _LIST], seconds=ANSWER_SECONDS)
        if answer.done:
            seen = json.loads(answer.output.splitlines()[-1])
            gpus = tuple(GpuReport(name=name, uuid=uuid) for name, uuid in seen)
        else:
            problem = answer.complaint()
    return GpuSight(
        torch=torch.__version__,
        built_for=built_for,
        driver=DRIVER.exists(),
        visible_devices=next((os.environ[name] for name in _VARIABLES if name in os.environ), None),
        gpus=gpus,
        problem=problem,
    )
