"""What the doctor concludes from programs, packages and folders, real and made up."""

import subprocess
import sys
from pathlib import Path

import pytest
from doctor_situations import NO_GPU, gpus, job, of_ranks, rank, situation

from hpc_lpm.doctor import gpu, software, storage
from hpc_lpm.doctor.situation import Finding
from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.programs import Answer


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
        (False, None, "", "ok", "no GPU;"),
        (True, None, "", "warning", "build for CPUs"),
        (False, "12.8", "[]", "ok", "no GPU;"),
        (True, "12.8", "[]", "warning", "finds no GPU"),
        (True, "12.8", '[["Some Card", "a"], ["Some Card", "b"]]', "ok", "2 x Some Card"),
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


def test_every_rank_with_a_gpu_of_its_own_is_ok() -> None:
    own = [rank(n, gpu=gpus(f"card-{n}", visible=str(n))) for n in range(2)]
    finding = gpu.check_gpu(of_ranks(*own))
    assert finding.verdict == "ok"
    assert "2 x Some Card" in finding.found
    assert "CUDA_VISIBLE_DEVICES=0, 1" in finding.found
    in_turn = [rank(n, gpu=gpus("a", "b"), gpu_number=n) for n in range(2)]
    assert gpu.check_gpu(of_ranks(*in_turn)).verdict == "ok"


def test_ranks_that_share_a_gpu_are_a_warning_and_ranks_of_two_nodes_share_none() -> None:
    finding = gpu.check_gpu(of_ranks(*(rank(n, gpu=gpus("a", visible="0")) for n in range(2))))
    assert finding.verdict == "warning"
    assert "ranks 0, 1 on n1 share one GPU" in finding.found
    assert "--gpus-per-task=1" in finding.remedy
    apart = [rank(n, host=f"n{n}", gpu=gpus("0")) for n in range(2)]
    assert gpu.check_gpu(of_ranks(*apart)).verdict == "ok"


def test_nodes_with_other_gpus_and_ranks_without_are_warnings_that_name_them() -> None:
    one = rank(0, gpu=gpus("a"))
    other = gpu.check_gpu(of_ranks(one, rank(1, host="n2", gpu=gpus("b", name="Old Card"))))
    assert other.verdict == "warning"
    assert "n2: 1 x Old Card" in other.found
    blind = gpu.check_gpu(of_ranks(one, rank(1, host="n2", gpu=NO_GPU)))
    assert blind.verdict == "warning"
    assert "rank 1 on n2 sees no GPU" in blind.found
    hidden = gpu.check_gpu(of_ranks(one, rank(1, gpu=gpus(visible=""))))
    assert hidden.verdict == "warning"
    assert "CUDA_VISIBLE_DEVICES=''" in hidden.found


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("HPC_LPM_CACHE", str(cache))
    monkeypatch.setattr(storage, "SCARCE_BYTES", 0)  # this machine may have little room
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
    monkeypatch.setattr(software, "STRATEGIES", {"horovod": STRATEGIES.named("horovod")})
    monkeypatch.setattr(software, "_IMPORT_SECONDS", 300.0)
    finding = software.check_packages(situation())
    assert finding.verdict == "warning"
    assert "built for another torch" in finding.found
    assert "make setup" in finding.remedy


TOY = """
import os
from hpc_lpm.engine.strategies.base import Strategy

class Toy(Strategy):
    package = "no_such_package"

    def start(self, context):
        raise NotImplementedError

class Crashing(Toy):
    def require_installed(self):
        os.abort()
"""


@pytest.mark.parametrize(
    ("name", "said", "remedy"),
    [
        ("Toy", "--strategy toy:Toy needs the package no_such_package", "install it"),
        ("Crashing", "--strategy toy:Crashing cannot be used", "choose another strategy"),
    ],
)
def test_the_package_of_every_registered_strategy_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str, remedy: str
) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    toy = STRATEGIES.named(f"toy:{name}")
    monkeypatch.setattr(software, "STRATEGIES", {f"toy:{name}": toy})
    monkeypatch.setattr(software, "_IMPORT_SECONDS", 300.0)
    finding = software.check_packages(situation())
    assert finding.verdict == "warning"
    assert said in finding.found
    assert remedy in finding.remedy


def test_a_missing_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "NEEDED", ("torch", "no-such-package"))
    finding = software.check_packages(situation())
    assert (finding.verdict, finding.found) == ("failed", "no-such-package not installed")


def test_an_mpirun_of_another_release_than_the_library_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = Answer(0, "mpirun (Open MPI) 4.1.6\n", "")
    monkeypatch.setattr(software, "ask", lambda *_, **__: version)
    finding = software.check_packages(situation(job(rank(0), rank(1))))
    assert finding.verdict == "warning"
    assert "4.1.6" in finding.found
    assert "5.0.11" in finding.found


def test_no_mpirun_beside_this_python_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    finding = software.check_packages(situation())
    assert finding.verdict == "failed"
    assert str(tmp_path) in finding.found
