"""What the doctor concludes from programs, packages and folders, real and made up."""

import subprocess
import sys
from pathlib import Path

import pytest
from doctor_situations import job, rank, situation

from hpc_lpm.campaign.doctor import accounting, gpu, packages, slurm, storage
from hpc_lpm.campaign.doctor.command import Answer
from hpc_lpm.campaign.doctor.finding import Finding

NO_ACCOUNTING = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds all programs there are, beside those of the base system."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/nowhere")
    return folder


def install(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.usefixtures("programs")
def test_a_machine_without_slurm_is_ok() -> None:
    for check in (slurm.check_slurm, accounting.check_accounting):
        finding = check(situation())
        assert (finding.verdict, finding.found) == ("ok", "not on this machine")


@pytest.mark.parametrize(
    ("script", "verdict", "found"),
    [
        ("echo 'debug* up 0/2/0/2'; echo 'long up 4/0/0/4'", "ok", "debug* (up, nodes 0/2/0/2)"),
        ("echo 'debug up 0/2/0/2'", "warning", "no default partition"),
        ("echo 'debug* down 0/2/0/2'", "warning", "none is up"),
        ("echo 'slurm_load_partitions: Unable to contact' >&2; exit 1", "warning", "Unable to"),
    ],
)
def test_sinfo_is_believed(programs: Path, script: str, verdict: str, found: str) -> None:
    install(programs, "sinfo", script)
    finding = slurm.check_slurm(situation())
    assert finding.verdict == verdict
    assert found in finding.found


def test_a_controller_that_does_not_answer_is_a_warning_and_no_hang(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(programs, "sinfo", "exec /bin/sleep 60")
    ask = slurm.ask
    monkeypatch.setattr(slurm, "ask", lambda command: ask(command, seconds=0.2))
    finding = slurm.check_slurm(situation())
    assert finding.verdict == "warning"
    assert "did not answer in time" in finding.found


def test_without_accounting_the_profile_must_ask_squeue(programs: Path, tmp_path: Path) -> None:
    install(programs, "sacct", NO_ACCOUNTING)
    bare = accounting.check_accounting(situation(folder=tmp_path))
    assert bare.verdict == "warning"
    assert "accounting storage is disabled" in bare.found
    assert "slurm-status-command: squeue" in bare.remedy
    profile = tmp_path / accounting.PROFILE
    profile.parent.mkdir()
    profile.write_text("slurm-status-command: squeue\nslurm-no-account: true\n")
    assert accounting.check_accounting(situation(folder=tmp_path)).verdict == "ok"


def test_the_profile_that_ships_suits_a_cluster_without_accounting(programs: Path) -> None:
    install(programs, "sacct", NO_ACCOUNTING)
    repository = Path(__file__).parents[2]
    assert accounting.check_accounting(situation(folder=repository)).verdict == "ok"


def test_accounts_are_named_where_the_profile_uses_none(programs: Path, tmp_path: Path) -> None:
    install(programs, "sacct", "exit 0")
    install(programs, "sacctmgr", "echo physics; echo chemistry; echo physics")
    profile = tmp_path / accounting.PROFILE
    profile.parent.mkdir()
    profile.write_text("slurm-no-account: true\n")
    finding = accounting.check_accounting(situation(folder=tmp_path))
    assert finding.verdict == "ok"
    assert "chemistry, physics" in finding.found
    assert "slurm_account" in finding.remedy


def look_at_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, driver: bool, cuda: str | None, seen: Answer
) -> Finding:
    file = tmp_path / "version"
    if driver:
        file.write_text("NVRM version: ...")
    monkeypatch.setattr(gpu, "DRIVER", file)
    monkeypatch.setattr(gpu.torch.version, "cuda", cuda)
    monkeypatch.setattr(gpu.torch.version, "hip", None)
    monkeypatch.setattr(gpu, "ask", lambda *_, **__: seen)
    return gpu.check_gpu(situation())


@pytest.mark.parametrize(
    ("driver", "cuda", "seen", "verdict", "said"),
    [
        (False, None, "", "ok", "none"),
        (True, None, "", "warning", "build for CPUs"),
        (False, "12.8", "0 ", "ok", "none"),
        (True, "12.8", "0 ", "warning", "finds no GPU"),
        (True, "12.8", "4 Some Card", "ok", "4 x Some Card"),
    ],
)
def test_gpu_driver_and_build_of_torch_must_match(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    driver: bool,
    cuda: str | None,
    seen: str,
    verdict: str,
    said: str,
) -> None:
    answer = Answer(0, seen, "")
    finding = look_at_gpu(monkeypatch, tmp_path, driver=driver, cuda=cuda, seen=answer)
    assert finding.verdict == verdict
    assert said in finding.found
    assert bool(finding.remedy) == (verdict == "warning")


def test_a_driver_that_hangs_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hung = Answer(None, "", "")
    finding = look_at_gpu(monkeypatch, tmp_path, driver=True, cuda="12.8", seen=hung)
    assert finding.verdict == "warning"
    assert "did not answer in time" in finding.found


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("HPC_LPM_CACHE", str(cache))
    return cache


def test_looking_at_folders_leaves_nothing_behind(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    assert storage.check_storage(situation(folder=folder)).verdict == "ok"
    assert not own_cache.exists()
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("purpose", "verdict"), [("results", "failed"), ("cache", "warning")])
def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, purpose: str, verdict: str
) -> None:
    own_cache.mkdir()
    (tmp_path / "results").mkdir()
    refused = {"results": tmp_path / "results", "cache": own_cache}[purpose]
    really = storage.tempfile.NamedTemporaryFile

    def temporary(*, dir: Path, prefix: str) -> object:
        if dir == refused:
            raise OSError(30, "Read-only file system")
        return really(dir=dir, prefix=prefix)

    monkeypatch.setattr(storage.tempfile, "NamedTemporaryFile", temporary)
    finding = storage.check_storage(situation(folder=tmp_path))
    assert finding.verdict == verdict
    assert str(refused) in finding.found
    assert "Read-only file system" in finding.found
    assert finding.remedy


@pytest.mark.usefixtures("own_cache")
def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SCARCE_BYTES", 2**80)
    finding = storage.check_storage(situation(folder=tmp_path))
    assert finding.verdict == "warning"
    assert "are free" in finding.found


def test_the_cache_is_where_the_set_up_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "config" / "environment" / "build_horovod.sh"
    line = next(s for s in script.read_text().splitlines() if s.startswith("cache_root="))
    for variables in ({"HPC_LPM_CACHE": "/a"}, {"XDG_CACHE_HOME": "/b"}, {"HPC_LPM_CACHE": ""}):
        for name in ("HPC_LPM_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        shell = subprocess.run(
            ["bash", "-c", f'{line}; printf %s "$cache_root"'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert str(storage.cache_folder()) == shell.stdout


def test_a_horovod_that_cannot_be_imported_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "horovod"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('built for another torch')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = packages.check_packages(situation())
    assert finding.verdict == "warning"
    assert "built for another torch" in finding.found
    assert "make setup" in finding.remedy


def test_a_missing_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", ("torch", "no-such-package"))
    finding = packages.check_packages(situation())
    assert (finding.verdict, finding.found) == ("failed", "no-such-package not installed")


def test_an_mpirun_of_another_release_than_the_library_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = Answer(0, "mpirun (Open MPI) 4.1.6\n", "")
    monkeypatch.setattr(packages, "ask", lambda *_, **__: version)
    finding = packages.check_packages(situation(job(rank(0), rank(1))))
    assert finding.verdict == "warning"
    assert "4.1.6" in finding.found
    assert "5.0.11" in finding.found


def test_no_mpirun_beside_this_python_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    finding = packages.check_packages(situation())
    assert finding.verdict == "failed"
    assert str(tmp_path) in finding.found
