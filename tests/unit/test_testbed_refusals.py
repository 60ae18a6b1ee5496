"""What the testbed says where it cannot run, without touching the machine."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "slurm" / "testbed"))

from lpm_testbed import packages
from lpm_testbed.command_line import main


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Return a function that runs a command as root and returns the sentence of its refusal."""
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def run(command: str) -> str:
        assert main([command, "--name", "refusals"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    return run


@pytest.mark.parametrize("command", ["up", "down"])
def test_without_root_nothing_is_done(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in refused(command)


def test_without_linux_nothing_is_done(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert "needs Linux, this is darwin" in refused("up")


def test_missing_packages_are_named_where_they_cannot_be_installed(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "installed", lambda program: program in ("ip", "tc"))
    assert "slurm-wlm and munge are not installed, and there is no apt-get" in refused("up")


def test_a_failed_installation_says_what_apt_said(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(packages, "installed", lambda program: program == "apt-get")
    monkeypatch.setattr(packages, "attempt", lambda command: None)
    monkeypatch.setattr(packages, "_POLICY", tmp_path / "policy-rc.d")
    fake = tmp_path / "apt-get"
    fake.write_text("#!/bin/sh\necho 'E: Unable to locate package slurm-wlm' >&2\nexit 100\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert "Unable to locate package slurm-wlm" in refused("up")
    assert not (tmp_path / "policy-rc.d").exists()
