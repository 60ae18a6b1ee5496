"""GPUs, their driver, and whether torch was built to use them."""

import sys
from pathlib import Path

import torch

from hpc_lpm.campaign.doctor.command import ask
from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "gpu"

DRIVER = Path("/proc/driver/nvidia/version")

# In a process of its own: a broken driver can hang whoever asks it.
_COUNT = (
    "import torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0; "
    "print(n, torch.cuda.get_device_name(0) if n else '')"
)
_IMPORT_SECONDS = 60.0


def check_gpu(situation: Situation) -> Finding:
    """Judge what torch sees against the driver that is there."""
    driver = DRIVER.exists()
    built_for = torch.version.cuda or torch.version.hip
    if built_for is None:
        if not driver:
            return Finding(NAME, "ok", f"none; torch {torch.__version__} computes on the CPU")
        return Finding(
            NAME,
            "warning",
            f"an NVIDIA driver is there, but torch {torch.__version__} is a build for CPUs",
            "remove .venv and run `make setup` on this machine, which then picks a CUDA build",
        )
    answer = ask([sys.executable, "-c", _COUNT], seconds=_IMPORT_SECONDS)
    count, _, name = answer.output.strip().partition(" ")
    if answer.done and count.isdigit() and int(count):
        return Finding(NAME, "ok", f"{count} x {name}, torch {torch.__version__}")
    if not driver and torch.version.hip is None:
        return Finding(NAME, "ok", f"none; torch {torch.__version__} computes on the CPU")
    return Finding(
        NAME,
        "warning",
        f"torch {torch.__version__} finds no GPU"
        + ("" if answer.done else f": {answer.complaint()}"),
        f"see what nvidia-smi says, that CUDA_VISIBLE_DEVICES hides none, and that the driver is "
        f"recent enough for {built_for}; in a Slurm job ask for one (--gres=gpu:1)",
    )
