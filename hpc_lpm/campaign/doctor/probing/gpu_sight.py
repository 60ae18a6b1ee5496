"""Which GPUs a process sees."""

import json
import os
import sys
from pathlib import Path

import torch

from hpc_lpm.campaign.doctor.reports import GpuReport, GpuSight
from hpc_lpm.programs import ask

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
