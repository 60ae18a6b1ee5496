"""Writes the files that Slurm reads: slurm.conf, the job-submit plugin and the hosts table."""

import platform
from pathlib import Path

from lpm_testbed.layout import HEAD, Layout, Node

DRIVER_JOB = "hpc-lpm-campaign"
"""The name that slurm/campaign.sbatch gives its job."""

SESSIONS = "sessions"
"""The folder of a cluster, another one on each node, where Open MPI keeps what belongs to a run."""

_PMIX = Path("/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so")

_PLACE_DRIVERS = f"""\
-- A driver sleeps most of the time: it goes to the head, not onto a core that trains.
function slurm_job_submit(job, partitions, user)
  if job.name == "{DRIVER_JOB}" and job.partition == nil then
    job.partition = "driver"
  end
  return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
  return slurm.SUCCESS
end
"""


# Open MPI names its folders in /tmp by process numbers. Those of nodes are counted for each node
# anew, while all nodes and the machine itself share /tmp.
_TELL_SESSIONS = """\
#!/bin/sh
echo "export PRTE_MCA_prte_tmpdir_base={sessions}"
"""


def write_configuration(layout: Layout) -> None:
    """Write all files that the daemons of this cluster read."""
    layout.configuration.write_text(_slurm_conf(layout), encoding="utf-8")
    (layout.folder / "job_submit.lua").write_text(_PLACE_DRIVERS, encoding="utf-8")
    prolog = layout.folder / "task_prolog"
    prolog.write_text(_TELL_SESSIONS.format(sessions=layout.folder / SESSIONS), encoding="utf-8")
    prolog.chmod(0o755)
    (layout.folder / "cgroup.conf").write_text("ConstrainCores=no\n", encoding="utf-8")
    (layout.folder / "hosts").write_text(_hosts(layout), encoding="utf-8")


def _slurm_conf(layout: Layout) -> str:
    folder = layout.folder
    compute = layout.compute_nodes
    names = ",".join(node.name for node in compute)
    settings = {
        "ClusterName": layout.options.name,
        "SlurmctldHost": f"{platform.node()}({layout.bridge_address})",
        "SlurmctldPort": layout.control_port,
        "SlurmdPort": layout.control_port + 1,
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        # A job that is queued again waits for old credentials to expire, by default two minutes.
        "AuthInfo": f"socket={layout.munge_socket},cred_expire=10",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool" / "%n",
        # Nodes share the machine's /tmp, in which PMIx would make folders of the same name.
        "TmpFS": folder / "spool" / "%n",
        "TaskProlog": folder / "task_prolog",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.%n.pid",
        "SlurmctldLogFile": folder / "log" / "slurmctld.log",
        "SlurmdLogFile": folder / "log" / "slurmd.%n.log",
        # A job's processes are found by descent: ranks leave their launcher's process group.
        "ProctrackType": "proctrack/linuxproc",
        # The cores of a node are those that its slurmd is bound to.
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SlurmdParameters": "config_overrides",
        "MpiDefault": "pmix" if _PMIX.exists() else "none",
        "JobSubmitPlugins": "lua",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "JobCompType": "jobcomp/none",
        "ReturnToService": 2,
        "SlurmdTimeout": 30,
        "KillWait": 30,
        "SchedulerParameters": "bf_interval=5",
    }
    lines = [f"{key}={value}" for key, value in settings.items()]
    lines += [_node_line(node) for node in layout.nodes()]
    lines.append(f"PartitionName=compute Nodes={names} Default=YES MaxTime=INFINITE State=UP")
    lines.append(f"PartitionName=driver Nodes={HEAD} MaxTime=INFINITE State=UP")
    return "\n".join(lines) + "\n"


def _node_line(node: Node) -> str:
    # A driver takes a core in Slurm's books; several may run on the head.
    cores = 8 if node.name == HEAD else len(node.cores)
    return (
        f"NodeName={node.name} NodeAddr={node.address} CPUs={cores} Boards=1 SocketsPerBoard=1 "
        f"CoresPerSocket={cores} ThreadsPerCore=1 RealMemory={node.memory_megabytes} State=UNKNOWN"
    )


def _hosts(layout: Layout) -> str:
    lines = ["127.0.0.1 localhost", f"{layout.bridge_address} {platform.node()}"]
    lines += [f"{node.address} {node.name}" for node in layout.nodes()]
    return "\n".join(lines) + "\n"
