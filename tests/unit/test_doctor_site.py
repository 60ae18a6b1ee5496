"""What the doctor concludes about a cluster's particulars: slurm/site.yaml, and networks."""

from pathlib import Path

import pytest
from doctor_situations import job, of_job, rank, situation

from hpc_lpm.doctor.network import check_network
from hpc_lpm.doctor.site import check_site

SBATCH = """#!/bin/sh
for word in "$@"; do
    case "$word" in
    --account=wrong|--mem*) echo "sbatch: error: refused $word" >&2; exit 1 ;;
    esac
done
"""


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for sbatch that refuses an account, and jobs that ask for memory."""
    program = tmp_path / "programs" / "sbatch"
    program.parent.mkdir()
    program.write_text(SBATCH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/nowhere")
    (tmp_path / "slurm").mkdir()
    return program


@pytest.mark.parametrize(
    ("text", "verdict", "found"),
    [
        ("account: right\nmemory: false", "ok", "what slurm/site.yaml says (account)"),
        ("memory: false", "ok", "what slurm/site.yaml says (nothing)"),
        ("account: wrong\nqos: q\nmemory: false", "failed", "refuses account (sbatch: error: "),
        ("qos: q", "failed", "refuses memory (sbatch: error: refused --mem-per-cpu=100)"),
        ("acount: a", "failed", "site.yaml is wrong at acount"),
    ],
)
@pytest.mark.usefixtures("sbatch")
def test_slurm_is_asked_about_everything_that_the_file_says(
    tmp_path: Path, text: str, verdict: str, found: str
) -> None:
    (tmp_path / "slurm" / "site.yaml").write_text(text)
    finding = check_site(situation(folder=tmp_path))
    assert finding.verdict == verdict
    assert found in finding.found
    # What is accepted by itself is not blamed.
    assert "qos (" not in finding.found


def test_a_slurm_that_takes_no_job_says_nothing_about_the_file(
    tmp_path: Path, sbatch: Path
) -> None:
    sbatch.write_text("#!/bin/sh\necho 'cannot reach the controller' >&2\nexit 1\n")
    finding = check_site(situation(folder=tmp_path))
    assert finding.verdict == "warning"
    assert "cannot reach the controller" in finding.found


def test_a_container_for_which_no_node_is_free_was_not_tried(tmp_path: Path, sbatch: Path) -> None:
    (tmp_path / "slurm" / "site.yaml").write_text(
        "memory: false\nqos: q\ncontainer: {runtime: pyxis, image: i}"
    )
    srun = sbatch.with_name("srun")
    srun.write_text('#!/bin/sh\necho "$*" > asked\necho "srun: error: $SAID" >&2\nexit 1\n')
    srun.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("SAID", "Unable to allocate resources: Requested nodes are busy")
        finding = check_site(situation(folder=tmp_path))
        assert finding.verdict == "warning"
        assert finding.found == "the container i was not tried, since no node was free within 60 s"
        asked = (tmp_path / "asked").read_text()
        assert asked.startswith(
            "--immediate=60 --time=5 --job-name=hpc-lpm-doctor --qos=q -n 2 --m"
        )
        assert f" --container-image=i --container-mounts={tmp_path}:{tmp_path} " in asked
        patch.setenv("SAID", "pyxis: image i does not exist")
        finding = check_site(situation(folder=tmp_path))
        assert finding.verdict == "failed"
        assert "i cannot be started (srun: error: pyxis: image i does not exist)" in finding.found


def test_without_slurm_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert check_site(situation(folder=tmp_path)).verdict == "ok"


def test_the_interface_of_every_node_is_shown() -> None:
    ranks = rank(0, interface="eth0 (10.1.0.1)"), rank(1, host="n2", interface="ib0 (10.1.0.2)")
    finding = check_network(of_job(job(*ranks)))
    assert finding.verdict == "ok"
    assert finding.found == "nodes talk over n1 eth0 (10.1.0.1), n2 ib0 (10.1.0.2)"
    assert check_network(of_job(job(rank(0), rank(1)))).verdict == "ok"


def test_a_node_whose_name_leads_nowhere_is_a_warning_that_names_both_variables() -> None:
    ranks = rank(0, interface="eth0 (10.1.0.1)"), rank(1, host="n2")
    finding = check_network(of_job(job(*ranks)))
    assert finding.verdict == "warning"
    assert finding.found.startswith("the name of n2 leads to no address")
    assert "OMPI_MCA_btl_tcp_if_include" in finding.remedy
    assert "GLOO_SOCKET_IFNAME" in finding.remedy


def test_the_word_of_the_user_is_shown_instead() -> None:
    named = "OMPI_MCA_btl_tcp_if_include=ib0"
    ranks = rank(0, network_of_user=named), rank(1, host="n2", network_of_user=named)
    finding = check_network(of_job(job(*ranks)))
    assert (finding.verdict, finding.found) == ("ok", f"as {named} says")
