"""What each job of a campaign starts with does not wait for torch, whose import takes seconds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "hpc_lpm" / "campaign" / "rules" / "campaign.smk"
IN_RULES = re.findall(r"^from (hpc_lpm\S*) import", RULES.read_text(), re.MULTILINE)
COMMANDS = ("campaign", "plan", "simulate", "validate", "doctor", "compare", "init", "report")


def run(code: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "DS_ACCELERATOR"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_snakemake_imports_in_the_driver_and_again_in_every_job() -> None:
    assert len(IN_RULES) > 5
    run(f"import sys, {', '.join(IN_RULES)}; assert 'torch' not in sys.modules")


@pytest.mark.parametrize("part", ["launching", "environment", "summary", "report", "expectations"])
def test_what_the_commands_of_rules_import(part: str) -> None:
    run(f"import sys, hpc_lpm.campaign.{part}; assert 'torch' not in sys.modules")


def test_commands_that_train_nothing_are_known_without_it() -> None:
    named = ", ".join(f"hpc_lpm.cli.{name}" for name in COMMANDS)
    run(f"import sys, {named}; assert 'torch' not in sys.modules")


def test_stages_find_no_accelerator_where_there_is_no_gpu() -> None:
    # DeepSpeed looks for one while it is imported.
    code = (
        "import os, sys, hpc_lpm.engine.pipeline.options\n"
        "assert 'torch' not in sys.modules and 'DS_ACCELERATOR' not in os.environ\n"
        "import torch, hpc_lpm.engine.pipeline.engine\n"
        "assert torch.cuda.is_available() or os.environ['DS_ACCELERATOR'] == 'cpu'\n"
        "import deepspeed.accelerator as found\n"
        "assert torch.cuda.is_available() == ('cuda' in found.get_accelerator().device_name())"
    )
    run(code)
