"""The pages build without a warning, and their generated parts are complete."""

import subprocess
import sys
from pathlib import Path

import hpc_lpm
from hpc_lpm.campaign.config import campaign_schema
from hpc_lpm.engine.strategies.registry import STRATEGIES
from tests.unit.documents import ROOT

sys.path.append(str(ROOT / "docs" / "_extensions"))

from command_pages import application


def test_the_pages_build_without_a_warning_and_hold_every_command_key_and_name(
    tmp_path: Path,
) -> None:
    built = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(built)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (built / "index.html").exists()
    reference = built / "reference"
    commands = (reference / "commands.html").read_text(encoding="utf-8")
    for name, group in application().commands.items():
        assert f"hpc-lpm {name}" in commands or f'id="hpc-lpm-{name}"' in commands
        for option in (option for parameter in group.params for option in parameter.opts):
            assert option.upper() in commands.upper(), f"{name} {option}"
    keys = (reference / "campaign-file.html").read_text(encoding="utf-8")
    for key in campaign_schema()["properties"]:
        assert f">{key}<" in keys, key
    library = (reference / "library.html").read_text(encoding="utf-8")
    methods = ["Profile.read", "Profile.write", "Plan.read", "Plan.write", "Engine.train_batch"]
    for name in [*hpc_lpm.__all__, *methods]:
        assert f'id="hpc_lpm.{name}"' in library, name
    names = (reference / "names.html").read_text(encoding="utf-8")
    for name in dict(STRATEGIES.items()):
        assert f">{name}<" in names, name
