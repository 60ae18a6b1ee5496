"""What slurm/site.yaml may say, and what jobs then ask for."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from hpc_lpm.cluster.site import Site
from hpc_lpm.errors import InputError

JOB_SCRIPT = Path(__file__).parents[2] / "slurm" / "job.sh"


def site(folder: Path, text: str) -> Site:
    (folder / "slurm").mkdir(exist_ok=True)
    (folder / "slurm" / "site.yaml").write_text(text)
    return Site.read(folder)


def test_a_site_of_which_nothing_is_said_asks_for_nothing(tmp_path: Path) -> None:
    for found in (Site.read(tmp_path), site(tmp_path, ""), site(tmp_path, "# account: a\n")):
        assert found.resources() == {}
        assert found.resources("--signal=B:USR2@120", "") == {"slurm_extra": "--signal=B:USR2@120"}
        assert found.memory_resources(mem_mb_per_cpu=7) == {"mem_mb_per_cpu": 7}
        environment: dict[str, str] = {}
        found.prepare(environment)
        assert environment == {}


def test_the_file_that_comes_with_the_toolkit_says_nothing(tmp_path: Path) -> None:
    assert Site.read(JOB_SCRIPT.parents[1]) == Site()
    # Its examples are accepted.
    text = (JOB_SCRIPT.parent / "site.yaml").read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    examples = [line for line in lines if line.split(":")[0] in Site.model_fields]
    assert len(examples) == len(Site.model_fields)
    assert site(tmp_path, "\n".join(examples)).modules == ("gcc/13", "cuda/12.8")


def test_everything_is_added_to_what_the_profile_asks_for(tmp_path: Path) -> None:
    found = site(
        tmp_path,
        "account: p1\npartition: gpu\nqos: high\nreservation: course\nconstraint: 'a&b'\n"
        "gpus_per_task: 2\nmemory: false\noptions: ['--nice=100', '--exclude=n[7-9]', "
        "'--wckey \"two words\"']\n",
    )
    asked = found.resources("--signal=B:USR2@120", "--dependency=singleton")
    extra = asked.pop("slurm_extra")
    assert asked == {
        "slurm_account": "p1",
        "slurm_partition": "gpu",
        "qos": "high",
        "constraint": "a&b",
    }
    assert shlex.split(extra) == [
        *("--signal=B:USR2@120", "--dependency=singleton"),
        *("--reservation=course", "--gpus-per-task=2"),
        *("--nice=100", "--exclude=n[7-9]", "--wckey", "two words"),
    ]
    assert found.memory_resources(mem_mb_per_cpu=7) == {"mem_mb": 0}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("acount: a", "wrong at acount: .*accepted keys are account, partition, "),
        ("- a", "is wrong at the whole file: "),
        ("account: [a]", "wrong at account: accepted is text"),
        ("account: 7", "wrong at account: "),
        ("account: 'a; rm -rf /'", "wrong at account: "),
        ("reservation: $(date)", "wrong at reservation: "),
        ("partition: --help", "wrong at partition: "),
        ("gpus_per_task: 0", "wrong at gpus_per_task: "),
        ("memory: 'no'", "wrong at memory: "),
        ("modules: gcc", "wrong at modules: "),
        ("modules: ['gcc 12']", "wrong at modules"),
        ("options: [nice]", "wrong at options"),
        ("options: ['--account=a']", "--account=a has a key of its own: account"),
        ("options: ['-p gpu']", "-p gpu has a key of its own: partition"),
        ("options: ['--gres=gpu:1']", "has a key of its own: gpus_per_task"),
        ("options: ['--time=1']", "is what a campaign says: resources.runtime_minutes"),
        ("account: a%j", "without spaces, % and signs of a shell, found 'a%j'"),
        ("interface: 10.0.0.0/99", "10.0.0.0/99 has the prefix '99' where 1 to 32 bits are acc"),
        ("interface: 10.0.0.0/255.0.0.0", "has the prefix '255.0.0.0' where 1 to 32 bits"),
        ("interface: 10.0.0.0/0", "has the prefix '0' where 1 to 32 bits"),
        ("interface: 300.1.1.1/8", "its network, as 10.0.0.0/24, found '300.1.1.1/8'"),
        ("interface: 300.1.1.1", "its network, as 10.0.0.0/24, found '300.1.1.1'"),
        ("interface: 10.0.0.7", "10.0.0.7 is an address: accepted are the name of one interface"),
        ("interface: ^lo", "accepted are the name of one interface, such as ib0, .*'\\^lo'"),
        ("interface: 'eth0,eth1'", "accepted are the name of one interface, .*'eth0,eth1'"),
        ("interface: averylonginterface", "accepted are the name of one interface"),
        ("account: a\naccount: b", "is not YAML "),
        ("{", "is not YAML "),
    ],
)
def test_anything_else_is_refused_by_a_sentence_that_names_the_file(
    text: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        site(tmp_path, text)
    assert str(refused.value).startswith(str(tmp_path / "slurm" / "site.yaml"))


@pytest.mark.parametrize("option", ["ib0", "eth0.100", "br-0a1b", "10.0.0.7/24"])
def test_one_interface_or_its_network_is_accepted(option: str, tmp_path: Path) -> None:
    assert site(tmp_path, f"interface: {option}").interface == option


def test_the_network_of_the_site_counts_unless_the_shell_names_another(tmp_path: Path) -> None:
    found = site(tmp_path, "interface: ib0\nmodules: [a/1, b]")
    environment = {"GLOO_SOCKET_IFNAME": "eth1"}
    found.prepare(environment)
    assert environment == {
        "GLOO_SOCKET_IFNAME": "eth1",
        "OMPI_MCA_btl_tcp_if_include": "ib0",
        "HPC_LPM_MODULES": "a/1 b",
    }


def run_job_script(folder: Path, modules: str) -> "subprocess.CompletedProcess[str]":
    """Run a job's script where `module` comes from a file, as on clusters."""
    start = folder / "modules" / "init" / "sh"
    start.parent.mkdir(parents=True)
    start.write_text(
        'module() { echo "$*" >> loaded; [ "$2" != missing ] || { echo no >&2; return 1; }; '
        "export MODULE_${2%%/*}=yes; }\n"
    )
    script = f'. "{JOB_SCRIPT}"\nenv | grep ^MODULE_ || true\n'
    return subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "LMOD_PKG": str(folder / "none"),
            "MODULESHOME": str(folder / "modules"),
            "HPC_LPM_MODULES": modules,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_job_loads_the_modules_of_the_site_in_order(tmp_path: Path) -> None:
    done = run_job_script(tmp_path, "gcc/13 cuda/12.8")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "loaded").read_text() == "load gcc/13\nload cuda/12.8\n"
    assert sorted(done.stdout.split()) == ["MODULE_cuda=yes", "MODULE_gcc=yes"]


def test_a_module_that_cannot_be_loaded_ends_the_job_by_a_sentence(tmp_path: Path) -> None:
    done = run_job_script(tmp_path, "gcc/13 missing cuda/12.8")
    assert done.returncode == 2
    assert "hpc-lpm: module missing, which slurm/site.yaml names, cannot be loaded" in done.stderr
    assert (tmp_path / "loaded").read_text() == "load gcc/13\nload missing\n"
