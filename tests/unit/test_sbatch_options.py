"""Which options of sbatch slurm/site.yaml may have, however they are written."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hpc_lpm.cluster.sbatch_options import check_options, options_in


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("--nice=100 --exclude n[7-9]", ["nice", "exclude"]),
        ("-xn7 -d1 -k", ["exclude", "dependency", "no-kill"]),
        ("-vOx n7 --requeue", ["verbose", "overcommit", "exclude", "requeue"]),
        ("--nic=3 --mail-u a@b", ["nice", "mail-user"]),
        ("--licenses --account=a", ["licenses"]),  # its value
        ("--of-a-plugin=3 --another", [None, None]),
    ],
)
def test_options_are_read_as_sbatch_reads_them(text: str, names: list[str | None]) -> None:
    assert [option.name for option in options_in(text)] == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-Aproj", "-Aproj has a key of its own: account"),
        ("--accou=foo", "--accou=foo has a key of its own: account"),
        ("--nice=100 --account=foo", "--account=foo has a key of its own: account"),
        ("-vp gpu", "-vp gpu has a key of its own: partition"),
        ("--gpus-per-node 2", "has a key of its own: gpus_per_task"),
        ("--mem-per-gpu=1", "has a key of its own: memory"),
        ("--container=/b", "has a key of its own: container"),
        ("-t3", "-t3 is what a campaign says: resources.runtime_minutes"),
        ("--tim=3", "--tim is the beginning of --time and of --time-min: write the whole name"),
        ("--acc=foo", "--acc is the beginning of --account and of --acctg-freq"),
        ("-N2", "-N2 is what a campaign says: resources.nodes"),
        ("--nodes 2", "is what a campaign says: resources.nodes"),
        ("--ntasks=2", "is what a campaign says: stages"),
        ("--ntasks-per-node=2", "is what a campaign says: stages and resources.nodes"),
        ("-c 2", "-c 2 is set for every job .one core for each rank.: leave it out"),
        ("--job-name=a", "is set for every job"),
        ("-o a", "is set for every job"),
        ("--error=a", "is set for every job"),
        ("--chdir=/", "is set for every job"),
        ("--comment=a", "is set for every job"),
        ("--parsable", "is set for every job"),
        ("--signal=B:TERM@9", "is set for every job"),
        ("--dependency=singleton", "is set for every job"),
        ("--export=NONE", "--export=NONE would take from jobs the environment"),
        ("--get-user-env", "would take from jobs the environment"),
        ("--array=1-3", "would run every trial several times at once"),
        ("-a1-3", "would run every trial several times at once"),
        ("--wrap=true", "would take the place of the job's script"),
        ("--test-only", "would submit nothing"),
        ("-h", "-h would submit nothing"),
        ("--help", "would submit nothing"),
        ("--usage", "would submit nothing"),
        ("-V", "would submit nothing"),
        ("--vers", "--vers would submit nothing"),
        ("-W", "would keep the driver from doing anything else"),
        ("--clusters=a", "would send jobs to where the driver does not ask"),
        ("-", "- is no option of sbatch, which would take it for the script"),
        ("--", "-- is no option of sbatch, which would take it for the script"),
        ("--nice 100", "100 is no option of sbatch, which would take it for the script"),
        ("--hold :", ": is no option of sbatch"),
        ("--=3", "--=3 is no option of sbatch"),
        ("-z", "-z in -z is no option of sbatch"),
        ("--exclude", "--exclude has no value: write one behind it"),
        ("-x", "-x has no value"),
        ("--hold=3", "--hold=3 has a value, but --hold takes none"),
        ("--nice='3", "is no word of a command"),
    ],
)
def test_what_is_set_elsewhere_or_breaks_a_job_is_refused_however_it_is_written(
    text: str, said: str
) -> None:
    with pytest.raises(ValueError, match=f"(^|.*){said}"):
        check_options(text)


def test_every_option_that_sbatch_describes_is_known(tmp_path: Path) -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("there is no sbatch here")
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=c\nSlurmctldHost=localhost\n")
    help_text = subprocess.run(
        ["sbatch", "--help"],
        env={"SLURM_CONF": str(conf), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout
    described = re.findall(
        r"^(?:  (-\w),? +|      )--([a-z][a-z-]+)(=|\[=)?", help_text, flags=re.MULTILINE
    )
    if not described:
        pytest.skip("sbatch does not describe itself here")
    for letter, name, equals in described:
        if name == "container":  # whose value the description leaves out
            continue
        value = "=1" if equals else ""
        assert [option.name for option in options_in(f"--{name}{value}")] == [name]
        if letter:
            assert [option.name for option in options_in(letter + value.strip("="))] == [name]
