import sys
from pathlib import Path

from hpc_lpm.cluster.machine import MARK, describe_machine, interconnects, machines_in
from hpc_lpm.programs import ask


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_machine_names_its_hardware() -> None:
    machine = describe_machine()
    assert machine.host
    assert machine.processor
    assert machine.cores >= 1
    assert machine.memory_bytes > 2**28


def test_every_node_is_listed_once_whatever_else_the_launcher_writes() -> None:
    first, second = (
        describe_machine().model_copy(update={"host": host}).model_dump_json()
        for host in ("n1", "n2")
    )
    output = f"a warning\n{MARK}{second}\nmore: {MARK}{first}\n{MARK}{second}\n"
    assert [machine.host for machine in machines_in(output)] == ["n1", "n2"]


def test_a_line_that_was_cut_off_or_mixed_with_another_describes_no_node() -> None:
    whole = describe_machine().model_copy(update={"host": "n1"}).model_dump_json()
    output = f"{MARK}{whole}\n{MARK}{whole[:9]}{MARK}{whole}\n{MARK}{whole[:20]}"
    assert [machine.host for machine in machines_in(output)] == ["n1"]


def test_a_process_of_its_own_tells_the_same() -> None:
    answer = ask([sys.executable, "-m", "hpc_lpm.cluster.machine"])
    (found,) = machines_in(answer.output)
    assert found.host == describe_machine().host


def test_interconnects_are_the_ones_with_hardware_behind_them(tmp_path: Path) -> None:
    write(tmp_path / "infiniband" / "mlx5_0" / "ports" / "1" / "rate", "200 Gb/sec (4X HDR)\n")
    for name, speed in (("eth0", "25000\n"), ("eth1", "-1\n"), ("veth0", "10000\n")):
        write(tmp_path / "net" / name / "speed", speed)
        if name != "veth0":
            (tmp_path / "net" / name / "device").mkdir()
    found = interconnects(tmp_path)
    assert found == {"mlx5_0 port 1": "200 Gb/sec (4X HDR)", "eth0": "25000 Mbit/s"}
