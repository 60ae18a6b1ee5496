"""The parts of DeepSpeed that stages run on, imported without what only its other parts need.

Its autotuner, which it always imports, imports MLflow wherever that is installed. Every rank would
pay for that when it starts: on a common machine as much as for all the rest of DeepSpeed.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_OF_THE_AUTOTUNER = "mlflow"


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Have imports of a module fail as if it were not installed; one already imported stays."""
    nothing = object()
    before = sys.modules.get(name, nothing)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is nothing:
            del sys.modules[name]
        else:
            sys.modules[name] = before  # type: ignore[assignment]


if not torch.cuda.is_available():
    # DeepSpeed would look for accelerators of all kinds, and warn on every rank that there is none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
with _hidden(_OF_THE_AUTOTUNER):
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from deepspeed.pipe import LayerSpec, PipelineModule
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.pipe.engine import PipelineEngine
    from deepspeed.utils import logger

__all__ = [
    "DeepSpeedConfig",
    "LayerSpec",
    "PipelineEngine",
    "PipelineModule",
    "deepspeed",
    "get_accelerator",
    "logger",
]
