"""Links that differ between stages: options, and what they do to a plan."""

import json
from pathlib import Path

import pytest

from hpc_lpm.cli import plan  # noqa: F401  registers it
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.profile_file import LayerProfile, Link, LinkProfile, Profile

FAST, SLOW = Link(latency_seconds=0.0, bandwidth_bytes_per_second=1e9), "500ms:10"


@pytest.fixture
def profile(tmp_path: Path) -> str:
    sizes = (10, 1, 10, 1, 10)
    layers = tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=1.0,
            backward_seconds=1.0,
            output_bytes=size,
            parameter_bytes=1,
            activation_bytes=1,
        )
        for number, size in enumerate(sizes)
    )
    path = tmp_path / "profile.json"
    Profile(
        model="chain",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=layers,
        link=LinkProfile(**FAST.model_dump(), overlap=False),
        links=(FAST, Link(latency_seconds=7.0, bandwidth_bytes_per_second=1.0)),
    ).write(path)
    return str(path)


def planned(profile: str, out: Path, *options: str) -> dict:
    command = ["plan", profile, "--stages", "3", "--weights", "live", "--tolerance", "0"]
    assert run_guarded(app, [*command, *options, "--out", str(out)]) == EXIT_DONE
    return json.loads(out.read_text())


def test_a_slow_link_draws_the_small_cut_to_its_boundary(profile: str, tmp_path: Path) -> None:
    # Layers of 2 s: 2, 2 and 1 of them take 4 s; the slow link adds 2 (0.5 + bytes / 10) to both.
    out = tmp_path / "plan.json"
    first = planned(profile, out, "--links", f"{SLOW},0:1e9")
    assert [stage["start"] for stage in first["stages"]] == [0, 2, 3]
    assert first["period_seconds"] == pytest.approx(4 + 2 * (0.5 + 0.1))
    last = planned(profile, out, "--links", f"0:1e9,{SLOW}")
    assert [stage["stop"] for stage in last["stages"]] == [2, 4, 5]
    assert last["options"]["links"][1] == {
        "latency_seconds": 0.5,
        "bandwidth_bytes_per_second": 10.0,
    }


def test_the_link_between_nodes_is_that_behind_the_last_device_of_a_node(
    profile: str, tmp_path: Path
) -> None:
    out = tmp_path / "plan.json"
    nodes = ("--node-link", SLOW, "--devices-per-node")
    for devices, links in (("1", f"{SLOW},{SLOW}"), ("2", f"0:1e9,{SLOW}"), ("3", "0:1e9,0:1e9")):
        by_nodes = planned(profile, out, *nodes, devices)
        assert by_nodes == planned(profile, out, "--links", links)


def test_measured_links_are_those_of_the_profile(profile: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    measured = planned(profile, out, "--links", "measured")
    assert measured == planned(profile, out, "--links", "0:1e9,7:1")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--links", "1e-5"), "--links has '1e-5', accepted is LATENCY:BANDWIDTH"),
        (("--links", "0:1,0:1,0:1"), "links has 3 entries for 3 stages"),
        (("--links", "0:0,0:1"), "bandwidth_bytes_per_second"),
        (("--links", "0:1,0:1", "--node-link", "0:1", "--devices-per-node", "1"), "both given"),
        (("--node-link", "0:1"), "--devices-per-node is missing"),
        (("--devices-per-node", "2"), "--node-link is missing"),
        (("--devices-per-node", "0", "--node-link", "0:1"), "accepted are whole numbers from 1"),
        (("--links", "measured", "--stages", "2"), "holds 2 links between ranks where 1 are"),
    ],
)
def test_links_that_do_not_fit_are_refused_in_one_sentence(
    options: tuple[str, ...],
    sentence: str,
    profile: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_guarded(app, ["plan", profile, "--stages", "3", *options]) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_links_between_stages_need_their_number(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", profile, "--devices", "2", "--global-batch", "4", "--links", "0:1"]
    assert run_guarded(app, command) == EXIT_BAD_INPUT
    assert "links between stages are given without --stages" in capsys.readouterr().err


def test_the_table_tells_which_boundary_has_which_link(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", profile, "--stages", "4", "--node-link", "1e-4:1e9"]
    assert run_guarded(app, [*command, "--devices-per-node", "2"]) == EXIT_DONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 us latency, 1 GB/s behind stage 0, 2; 100 us latency, 1 GB/s behind stage 1" in shown
    assert run_guarded(app, [*command, "--devices-per-node", "1"]) == EXIT_DONE
    assert "100 us latency, 1 GB/s at every boundary" in " ".join(capsys.readouterr().out.split())
