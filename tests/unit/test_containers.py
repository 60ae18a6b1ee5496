"""The container of slurm/site.yaml: the words that start ranks in it, and what is refused."""

import os
import sysconfig
from pathlib import Path

import pytest

from hpc_lpm.cluster import launchers
from hpc_lpm.cluster.container import Container
from hpc_lpm.cluster.launchers import rank_command, rank_environment
from hpc_lpm.cluster.site import Site
from hpc_lpm.errors import InputError

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
APPTAINER = """
container:
  runtime: apptainer
  image: ~/my images/hpc.sif
  binds: [/data, "~/in:/in:ro"]
  options: ["--nv", "--env 'A=b c'"]
  python: /opt/bin/python
"""
PYXIS = "container: {runtime: pyxis, image: 'nvcr.io#a/b:1', binds: [/data], options: [--x]}"


def container(folder: Path, text: str) -> Container:
    (folder / "slurm").mkdir(exist_ok=True)
    (folder / "slurm" / "site.yaml").write_text(text)
    site = Site.read(folder)
    environment: dict[str, str] = {}
    site.prepare(environment)
    told = Container.of_jobs(environment)
    assert told == site.container
    assert told is not None
    return told


def test_apptainer_stands_between_the_launcher_and_each_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    inside = [
        *("apptainer", "exec", "--bind", "/data", "--bind", "/home/me/in:/in:ro", "--nv"),
        *("--env", "A=b c", "/home/me/my images/hpc.sif", "/opt/bin/python"),
    ]
    found = container(tmp_path, APPTAINER)
    several = rank_command(["models"], 2, "mpirun", ["--x"], {}, found)
    assert several[0].endswith("mpirun")
    assert several[1:] == ["-n", "2", "--x", *inside, "-m", "mpi4py", "-m", "hpc_lpm", "models"]
    one = rank_command(["models"], 1, "mpirun", None, {}, found)
    assert one == [*inside, "-m", "hpc_lpm", "models"]
    by_srun = rank_command(["models"], 2, "srun", ["--mpi=pmix"], JOB, found)
    assert by_srun[:5] == ["srun", "-n", "2", "--mpi=pmix", "apptainer"]


def test_srun_starts_a_container_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a study"
    folder.mkdir()
    monkeypatch.chdir(folder)
    found = container(tmp_path, PYXIS)
    options = [
        "--container-image=nvcr.io#a/b:1",
        f"--container-mounts={folder}:{folder},/data:/data",
        *(f"--container-workdir={folder}", "--x"),
    ]
    program = ["python3", "-m", "mpi4py", "-m", "hpc_lpm", "models"]
    several = rank_command(["models"], 2, "srun", ["--mpi=pmix"], JOB, found)
    assert several == ["srun", "-n", "2", "--mpi=pmix", *options, *program]
    one = rank_command(["models"], 1, "srun", None, JOB, found)
    assert one == ["srun", "--overlap", "-n", "1", *options, "python3", "-m", "hpc_lpm", "models"]
    bundle = container(tmp_path, "container: {runtime: slurm, image: /b}")
    several = rank_command(["models"], 2, "srun", [], JOB, bundle)
    assert several == ["srun", "-n", "2", "--container=/b", *program]


def test_a_container_that_srun_starts_needs_srun_and_a_job(tmp_path: Path) -> None:
    found = container(tmp_path, PYXIS)
    with pytest.raises(InputError, match=r"started by mpirun: set launcher: \{mpi: srun\}"):
        rank_command(["models"], 2, "mpirun", None, JOB, found)
    with pytest.raises(InputError, match=r"this is no job of Slurm: run .* --profile slurm"):
        rank_command(["models"], 1, "srun", None, {}, found)


def test_a_runtime_that_a_node_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for text, program in ((APPTAINER, "apptainer"), (PYXIS, "srun")):
        with pytest.raises(InputError, match=f"^{program}, which is to start the container of sl"):
            container(tmp_path, text).require_installed()


def test_a_folder_that_cannot_be_mounted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a,b").mkdir()
    monkeypatch.chdir(tmp_path / "a,b")
    with pytest.raises(InputError, match=r"a,b cannot be mounted in a container"):
        rank_command(["models"], 2, "srun", None, JOB, container(tmp_path, PYXIS))


def test_packages_that_are_installed_here_are_not_put_before_those_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = container(tmp_path, APPTAINER)
    here = {"PYTHONPATH": "/of/the/user"}
    # A checkout is the same code inside as outside, if the container sees it.
    checkout = Path(launchers.__file__).parents[2]
    assert rank_environment(here, 1, found)["PYTHONPATH"] == f"{checkout}{os.pathsep}/of/the/user"
    packages = Path(sysconfig.get_path("purelib"))
    module = packages / "hpc_lpm" / "cluster" / "launchers.py"
    monkeypatch.setattr(launchers, "__file__", str(module))
    assert (
        rank_environment({"PYTHONPATH": f"{packages.resolve()}:/of/the/user"}, 1, found)[
            "PYTHONPATH"
        ]
        == "/of/the/user"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("container: hpc.sif", "wrong at container: "),
        ("container: {runtime: docker, image: a}", "wrong at container.runtime: .*'apptainer', "),
        ("container: {runtime: apptainer}", "wrong at container.image: "),
        ("container: {runtime: apptainer, image: ''}", "wrong at container.image: "),
        ("container: {runtime: apptainer, image: '--help'}", "begins with no -, found '--help'"),
        ('container: {runtime: apptainer, image: "a\\nb"}', r"in one line .* found 'a\\nb'"),
        ("container: {runtime: apptainer, image: a, binds: ['/a,/b']}", "is one folder, as FROM"),
        ("container: {runtime: apptainer, image: a, options: [nv]}", "such as --nv, found 'nv'"),
        (
            "container: {runtime: apptainer, image: a, options: ['--cleanenv']}",
            "--cleanenv would hide from ranks what mpirun tells them",
        ),
        ("container: {runtime: slurm, image: a, binds: [/b]}", "names its mounts in its config"),
        ("container: {runtime: apptainer, image: a, pyhton: b}", "wrong at container.pyhton: "),
    ],
)
def test_what_cannot_be_a_container_is_refused_by_a_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        container(tmp_path, text)
    with pytest.raises(InputError, match="HPC_LPM_CONTAINER, by which a driver tells its jobs"):
        Container.of_jobs({"HPC_LPM_CONTAINER": "{"})


REFUSED_OF_APPTAINER = {
    "--cleanenv=true": "would hide from ranks what mpirun tells them",
    "--nv --cleanenv": "--cleanenv would hide from ranks what mpirun tells them",
    "--contain --cleanenv": "--contain would hide from ranks the folder",
    "-eC": "-eC would hide from ranks what mpirun tells them",
    "-wC": "would hide from ranks what mpirun tells them",
    "-e": "would hide from ranks what mpirun tells them",
    "-e=true": "would hide from ranks what mpirun tells them",
    "-C": "would hide from ranks what mpirun tells them",
    "--compat": "would hide from ranks what mpirun tells them",
    "-c": "-c would hide from ranks the folder of the study",
    "-p": "-p would hide ranks from the launcher, whose signals",
    "--pid": "--pid would hide ranks from the launcher, whose signals",
    "--net": "would hide ranks on other nodes from each other",
    "--ipc": "the memory that they share",
    "--pwd /tmp": "would start ranks in a folder other than that of the study",
    "-h": "would say something in place of starting ranks",
    "-z": "-z in -z is no option of the runtime",
    "--nv image": "image in --nv image would be taken for the image",
    "--": "-- in -- would be taken for the image",
}


@pytest.mark.parametrize("option", REFUSED_OF_APPTAINER)
@pytest.mark.parametrize("runtime", ["apptainer", "singularity"])
def test_options_that_keep_ranks_from_working_together_are_refused_however_they_are_written(
    tmp_path: Path, runtime: str, option: str
) -> None:
    with pytest.raises(InputError, match=REFUSED_OF_APPTAINER[option]):
        container(tmp_path, f"container: {{runtime: {runtime}, image: a, options: ['{option}']}}")


@pytest.mark.parametrize(
    "option",
    ["--nv -B /a", "-B/a:/b", "-Be", "--cleanenv=false", "-w", "--env A=b", "--of-its-own value"],
)
def test_other_options_of_a_runtime_are_left_as_they_are(tmp_path: Path, option: str) -> None:
    text = f"container: {{runtime: apptainer, image: a, options: ['{option}']}}"
    assert container(tmp_path, text).options == (option,)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--export=NONE", "--export=NONE would hide from ranks what mpirun tells them"),
        ("--export A,B", "would hide from ranks what mpirun tells them"),
        ("--expo=NONE", "would hide from ranks what mpirun tells them"),
        ("-n4", "-n4 would start another number of ranks"),
        ("--mpi=pmix --ntasks 4", "--ntasks would start another number of ranks"),
        ("-D /tmp", "would start ranks in a folder other than"),
        ("--container-image=b", "would start another container than `image`"),
        ("--help", "would say something in place of starting ranks"),
    ],
)
def test_options_of_srun_that_do_the_same_are_refused(
    tmp_path: Path, option: str, said: str
) -> None:
    for runtime in ("pyxis", "slurm"):
        text = f"container: {{runtime: {runtime}, image: a, options: ['{option}']}}"
        with pytest.raises(InputError, match=said):
            container(tmp_path, text)
    for kept in ("--export=ALL,A=b", "--export ALL", "--no-container-mount-home", "--exclusive"):
        text = f"container: {{runtime: pyxis, image: a, options: ['{kept}']}}"
        assert container(tmp_path, text).options == (kept,)


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("/a:/b:c:d", "accepted is one folder, as FROM, FROM:TO or FROM:TO:ro, found '/a:/b:c:d'"),
        (":/b", "accepted is one folder"),
        ("/a:", "where TO begins with /, found '/a:'"),
        ("/a:ro", "where TO begins with /, found '/a:ro'"),
        ("a", "where FROM begins with /, found 'a'"),
        ("/a:/b:c", "found 'c' in place of ro in '/a:/b:c'"),
    ],
)
def test_a_bind_is_one_folder_and_where_ranks_see_it(tmp_path: Path, bind: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        container(tmp_path, f"container: {{runtime: apptainer, image: a, binds: ['{bind}']}}")


def test_pyxis_takes_flags_of_its_mounts(tmp_path: Path) -> None:
    text = "container: {runtime: pyxis, image: a, binds: ['/a:/b:ro+nosuid']}"
    assert container(tmp_path, text).binds == ("/a:/b:ro+nosuid",)
