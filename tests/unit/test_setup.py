"""Set-up in a folder with spaces and with a Python that only pretends: what it does and says."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAKE_PYTHON = Path(__file__).with_name("fake_python.sh")
TOOLS = """awk basename bash cat chmod cp cut date df dirname env find flock getconf grep gzip head
ln make mkdir mktemp mv readlink realpath rm sed sha256sum sleep sort tail tar tee touch true"""
PIP_LEFT_OUT = ("PIP_USER", "PIP_TARGET", "PIP_REQUIRE_VIRTUALENV", "PIP_NO_DEPS")
LONG_SECONDS = 120.0
"""Longer than anything takes that is waited for here."""


class Checkout:
    """A checkout with the scripts of set-up, and the machine that they find."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a checkout"
        scripts = self.folder / "config" / "environment"
        scripts.mkdir(parents=True)
        for name in ("setup.sh", "build_horovod.sh"):
            shutil.copy(ROOT / "config" / "environment" / name, scripts)
        shutil.copytree(ROOT / "config" / "environment" / "lock", scripts / "lock")
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        self.machine = folder / "the machine"
        self.programs, self.temporary = self.machine / "bin", self.machine / "temporary files"
        self.cache, self.log = self.machine / "the cache", self.machine / "pip.log"
        for made in (self.programs, self.temporary):
            made.mkdir(parents=True)
        for tool in TOOLS.split():
            (self.programs / tool).symlink_to(str(shutil.which(tool)))
        shutil.copy(FAKE_PYTHON, self.programs / "python3")
        self.install_compiler()
        self.environment = {
            "PATH": str(self.programs),
            "HOME": str(self.machine),
            "TMPDIR": str(self.temporary),
            "HPC_LPM_CACHE": str(self.cache),
            "FAKE_LOG": str(self.log),
        }

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    @property
    def missing(self) -> Path:
        return self.venv / "horovod-missing.txt"

    def install_compiler(self) -> None:
        (self.programs / "c++").symlink_to(str(shutil.which("true")))

    def remove_compiler(self) -> None:
        (self.programs / "c++").unlink()

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        command = arguments or ("config/environment/setup.sh",)
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        process = self.start(*arguments, **variables)
        said, _ = process.communicate(timeout=LONG_SECONDS)
        return process.returncode, said

    def setup(self, *options: str, **variables: str) -> tuple[int, str]:
        return self.run("config/environment/setup.sh", *options, **variables)

    def calls(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_set_up_says_one_line_a_step(checkout: Checkout) -> None:
    code, said = checkout.setup()
    assert code == 0
    *steps, last = said.splitlines()
    assert [line.split("]")[0] for line in steps] == [f"[{n}/6" for n in range(1, 7)]
    assert all(" done in " in line for line in steps)
    assert last == "setup: done"


def test_horovod_is_built_where_no_path_has_a_space(checkout: Checkout) -> None:
    assert checkout.setup()[0] == 0
    built = next(line for line in checkout.calls().splitlines() if line.startswith("built by"))
    assert built.count(" ") == "built by P in D with J and C, TMPDIR T".count(" ")
    python = Path(built.split()[2])
    assert python.parts[-3:] == ("environment", "bin", "python")
    assert not python.parents[2].exists()


def test_the_sources_are_adapted(checkout: Checkout) -> None:
    assert checkout.setup()[0] == 0
    calls = checkout.calls()
    assert calls.count("set(CMAKE_CXX_STANDARD 20)") == 2
    assert "CMAKE_CXX_STANDARD 14" not in calls
    # Behind `project`, which would undo it.
    assert "project(horovod CXX)\nset(CMAKE_SKIP_RPATH ON)\n" in calls


def test_the_wheel_is_built_once_a_machine(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.setup()[0] == 0
    (wheel,) = checkout.cache.glob("horovod-0.28.1-*/horovod-*.whl")
    assert wheel.read_text() == "wheel\n"
    other = Checkout(tmp_path / "other")
    assert other.setup(HPC_LPM_CACHE=str(checkout.cache))[0] == 0
    assert f"install --no-deps --force-reinstall {wheel}" in other.calls()
    assert "built by" not in other.calls()


def test_a_second_set_up_does_nothing(checkout: Checkout) -> None:
    checkout.setup()
    before = checkout.calls()
    for option in ([], ["--no-retry"], ["--require-horovod"]):
        assert checkout.setup(*option) == (0, "")
    assert checkout.calls() == before


@pytest.mark.parametrize(
    ("lacking", "reason", "remedy"),
    [
        ("compiler", "no C++ compiler was found", "Debian: g++"),
        ("download", "the source of Horovod 0.28.1 could not be downloaded", "package index"),
        ("wheel", "its build failed", "read .venv/setup.log"),
    ],
)
def test_what_cannot_be_built_is_left_out(
    checkout: Checkout, lacking: str, reason: str, remedy: str
) -> None:
    fails = {"FAKE_FAILS": f"{lacking}*"}
    if lacking == "compiler":
        checkout.remove_compiler()
    code, said = checkout.setup(**fails)
    assert code == 0
    assert "left out in" in next(line for line in said.splitlines() if line.startswith("[4/6]"))
    sentence = next(line for line in said.splitlines() if line.startswith("setup: "))
    assert "setup: done" not in said
    for part in (reason, remedy, "run make setup again", str(checkout.venv / "setup.log")):
        assert part in sentence
    first, second = checkout.missing.read_text().splitlines()
    assert reason in first
    assert remedy in second
    # What runs campaigns does not try again, what tests does not do without.
    assert checkout.setup("--no-retry", **fails) == (0, "")
    code, said = checkout.setup("--require-horovod", **fails)
    assert code == 2
    assert "the tests need Horovod" in said
    assert reason in said
    # Once the cause is gone, Horovod alone is made up for.
    if lacking == "compiler":
        checkout.install_compiler()
    before = checkout.calls()
    code, said = checkout.setup()
    assert (code, said.splitlines()[-1]) == (0, "setup: done")
    assert said.startswith("[1/1] Horovod")
    assert not checkout.missing.exists()
    assert "torch-cpu.txt" not in checkout.calls().removeprefix(before)
    assert checkout.setup() == (0, "")


def test_a_failure_shows_the_end_of_the_log_and_the_next_set_up_goes_on(checkout: Checkout) -> None:
    code, said = checkout.setup(FAKE_FAILS="install *packages.txt")
    assert code == 2
    assert "[2/6] dependencies (about 2 minutes)... failed in" in said
    assert "    ERROR: the index does not answer" in said
    assert str(checkout.venv / "setup.log") in said
    assert said.splitlines()[-1].startswith("setup: dependencies failed")
    code, said = checkout.setup()
    assert code == 0
    assert "[1/6] virtual environment (it is there)..." in said


def test_a_moved_checkout_gets_an_environment_of_its_own(checkout: Checkout) -> None:
    checkout.setup()
    moved = checkout.folder.with_name("moved")
    checkout.folder.rename(moved)
    checkout.folder = moved
    (moved / ".venv" / "old").touch()
    code, said = checkout.setup()
    assert code == 0
    assert "[1/6] virtual environment, anew (the one in .venv was made in another folder" in said
    assert not (moved / ".venv" / "old").exists()
    assert checkout.setup() == (0, "")


def test_an_environment_without_pip_is_made_anew(checkout: Checkout) -> None:
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "python").symlink_to("/nowhere/python")
    code, said = checkout.setup()
    assert code == 0
    assert "virtual environment, anew" in said


def test_a_link_to_the_environment_of_another_checkout_is_left_alone(
    checkout: Checkout, tmp_path: Path
) -> None:
    other = Checkout(tmp_path / "other")
    other.setup()
    checkout.venv.symlink_to(other.venv)
    code, said = checkout.setup()
    assert code == 2
    assert "is a link to an environment that was made elsewhere" in said
    assert other.setup() == (0, "")


def test_an_unwritable_cache_is_replaced_by_the_environment(checkout: Checkout) -> None:
    checkout.cache.touch()  # where a folder cannot be made, not even by root
    assert checkout.setup()[0] == 0
    assert list(checkout.venv.glob("horovod-0.28.1-*/horovod-*.whl"))


def test_without_home_the_cache_is_that_of_the_account(checkout: Checkout) -> None:
    del checkout.environment["HPC_LPM_CACHE"], checkout.environment["HOME"]
    account = Path("~").expanduser()
    line = next(
        line
        for line in (ROOT / "config/environment/build_horovod.sh").read_text().splitlines()
        if line.startswith("cache_root=")
    )
    code, said = checkout.run("bash", "-uc", f'{line}; printf %s "$cache_root"')
    assert (code, said) == (0, f"{account}/.cache/hpc-lpm")


def test_a_wheel_that_was_cut_off_is_built_anew(checkout: Checkout) -> None:
    assert checkout.setup()[0] == 0
    (wheel,) = checkout.cache.glob("horovod-0.28.1-*/horovod-*.whl")
    wheel.write_text("wh")
    broken = checkout.machine / "broken"
    broken.write_text("1")
    shutil.rmtree(checkout.venv)
    code, said = checkout.setup(FAKE_BROKEN=str(broken))
    assert (code, said.splitlines()[-1]) == (0, "setup: done")
    assert wheel.read_text() == "wheel\n"


def test_a_wheel_that_cannot_be_imported_is_left_out(checkout: Checkout) -> None:
    broken = checkout.machine / "broken"
    broken.write_text("9")
    code, said = checkout.setup(FAKE_BROKEN=str(broken))
    assert code == 0
    assert "cannot be imported" in said
    assert "cannot be imported" in checkout.missing.read_text()


def test_variables_of_the_shell_do_not_decide_what_is_installed_where(checkout: Checkout) -> None:
    variables = dict.fromkeys(PIP_LEFT_OUT, "1") | {
        "PIP_INDEX_URL": "file:///index",
        "PIP_DEFAULT_TIMEOUT": "7",
        "PYTHONPATH": "/elsewhere",
        "MAKEFLAGS": "-j --jobserver-auth=3,4",
    }
    assert checkout.setup(**variables)[0] == 0
    found = (checkout.machine / "pip.log.environment").read_text().splitlines()
    assert {"PIP_INDEX_URL=file:///index", "PIP_DEFAULT_TIMEOUT=7", "PIP_USER=0"} <= set(found)
    for name in ("PIP_TARGET", "PIP_REQUIRE_VIRTUALENV", "PIP_NO_DEPS", "PYTHONPATH", "MAKEFLAGS"):
        assert not [line for line in found if line.startswith(name)]


def test_an_interrupted_set_up_goes_on(checkout: Checkout) -> None:
    process = checkout.start(FAKE_WAITS="install *--editable*")
    wait_until(lambda: "--editable" in checkout.calls())
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=LONG_SECONDS)
    assert process.returncode == 130
    assert "setup: interrupted; make setup goes on from here." in said
    assert checkout.setup()[0] == 0


def test_an_interrupted_build_leaves_nothing_behind(checkout: Checkout) -> None:
    process = checkout.start(FAKE_WAITS="wheel*")
    wait_until(lambda: "pip wheel" in checkout.calls())
    build = Path(checkout.calls().partition("--wheel-dir ")[2].splitlines()[0].split()[0]).parent
    assert build.is_dir()
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=LONG_SECONDS)
    assert process.returncode == 130
    # What builds may clean up a little longer than who has started it.
    wait_until(lambda: not build.exists())
    assert "left out" not in said
    assert not checkout.missing.exists()
    assert not list(checkout.cache.glob("*/*.whl"))
    assert checkout.setup()[0] == 0


def test_of_two_set_ups_at_once_the_second_waits(checkout: Checkout) -> None:
    first = checkout.start(FAKE_WAITS="install *torch-cpu.txt")
    wait_until(lambda: "torch-cpu.txt" in checkout.calls())
    second = checkout.start()
    assert second.stdout
    assert "setup: waiting for another set-up" in second.stdout.readline()
    Path(f"{checkout.log}.go").touch()
    assert first.communicate(timeout=LONG_SECONDS)[0].endswith("setup: done\n")
    assert second.communicate(timeout=LONG_SECONDS)[0] == ""
    assert (first.returncode, second.returncode) == (0, 0)
    assert checkout.calls().count("torch-cpu.txt") == 1


@pytest.mark.parametrize("version", ["none", "old"])
def test_without_a_python_set_up_says_which_it_needs(checkout: Checkout, version: str) -> None:
    python = checkout.programs / "python3"
    python.unlink()
    own = {"HPC_LPM_PYTHON": "/no such/python"} if version == "old" else {}
    code, said = checkout.setup(**own)
    assert code == 2
    assert "no Python 3.11 or newer with venv was found" in said
    assert "HPC_LPM_PYTHON" in said
    assert ("/no such/python" in said) == (version == "old")


def test_make_run_takes_a_file_whose_path_has_a_space(checkout: Checkout) -> None:
    code, said = checkout.run("make", "-j2", "run", "CONFIG=my config/a campaign.yaml")
    assert code == 0, said
    arguments = (checkout.machine / "pip.log.snakemake").read_text().split("|")
    assert "my config/a campaign.yaml" in arguments
    # It goes on where an interrupted one has stopped, whether or not that could clean up.
    assert {"--rerun-incomplete", "--nolock"} <= set(arguments)


@pytest.mark.parametrize("target", ["run", "lint"])
def test_what_does_not_need_horovod_goes_on_without_it(checkout: Checkout, target: str) -> None:
    checkout.remove_compiler()
    said = checkout.run("make", "--silent", "-n", target)[1]
    assert "setup.sh --no-retry" in said


def test_make_test_fails_without_horovod(checkout: Checkout) -> None:
    checkout.remove_compiler()
    code, said = checkout.run("make", "test")
    assert code != 0
    assert "the tests need Horovod, but no C++ compiler was found" in said


def installs(calls: str) -> list[str]:
    return [line for line in calls.splitlines() if line.startswith("pip install ")]


def test_whatever_comes_from_an_index_is_installed_by_its_hash(checkout: Checkout) -> None:
    assert checkout.setup()[0] == 0
    calls = checkout.calls().splitlines()
    from_an_index = [line for line in calls if line.startswith(("pip install ", "pip download "))]
    own = [line for line in from_an_index if "--require-hashes" not in line]
    # The toolkit itself, and the wheel of Horovod whose source was downloaded by its hash.
    (wheel,) = checkout.cache.glob("*/horovod-*.whl")
    assert [line.rpartition(" --")[2] for line in own] == [
        f"editable {checkout.folder}",
        f"force-reinstall {wheel}",
    ]
    assert all("--no-deps" in line for line in from_an_index)
    locked = {Path(line.rpartition("--requirement ")[2]).name for line in calls}
    files = {path.name for path in (ROOT / "config/environment/lock").glob("*.txt")}
    assert files - locked == {"torch-cuda.txt"}  # this machine has no GPU


def test_with_a_gpu_the_cuda_build_is_installed_and_without_a_cpu_build_as_well(
    checkout: Checkout, tmp_path: Path
) -> None:
    (checkout.programs / "nvidia-smi").symlink_to(str(shutil.which("true")))
    assert checkout.setup()[0] == 0
    assert "torch-cuda.txt" in checkout.calls()
    assert "torch-cpu.txt" not in checkout.calls()
    other = Checkout(tmp_path / "other")
    assert other.setup(FAKE_FAILS="install *torch-cpu.txt")[0] == 0
    assert other.calls().index("torch-cpu.txt") < other.calls().index("torch-cuda.txt")


def test_a_torch_of_ones_own_is_installed_and_stays(checkout: Checkout) -> None:
    own = checkout.machine / "my torch.txt"
    code, said = checkout.setup(HPC_LPM_TORCH=str(own))
    assert code == 2
    assert f"HPC_LPM_TORCH names {own}, which is no file" in said
    own.write_text("torch==2.14.1\n")
    assert checkout.setup(HPC_LPM_TORCH=str(own))[0] == 0
    (call,) = [line for line in installs(checkout.calls()) if "torch" in Path(line).name]
    kept = Path(call.partition("--requirement ")[2])
    assert kept.read_text() == own.read_text()
    assert "--no-deps" not in call
    assert checkout.setup() == (0, "")
    assert checkout.setup(HPC_LPM_TORCH=str(own)) == (0, "")
    # Another one is installed, and stays when set-up has to run again.
    own.write_text("torch==2.15.0\n")
    assert checkout.setup(HPC_LPM_TORCH=str(own))[0] == 0
    assert kept.read_text() == own.read_text()
    (checkout.folder / "pyproject.toml").write_text("changed")
    before = checkout.calls()
    assert checkout.setup()[0] == 0
    assert str(kept) in checkout.calls().removeprefix(before)
    assert "/lock/torch" not in checkout.calls()


def test_packages_that_do_not_fit_together_fail_set_up(checkout: Checkout) -> None:
    code, said = checkout.setup(FAKE_FAILS="check")
    assert code == 2
    assert "failed in" in said
    assert checkout.setup()[0] == 0
    # Those of the toolkit and those of the RO-Crate validator.
    assert checkout.calls().count("pip check") == 1 + 2


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_pass_shellcheck() -> None:
    scripts = [*(ROOT / "config/environment").glob("*.sh"), ROOT / "slurm/campaign.sbatch"]
    done = subprocess.run(
        ["shellcheck", "--severity=warning", *map(str, scripts), str(FAKE_PYTHON)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
