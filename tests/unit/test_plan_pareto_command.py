"""`plan --pareto` as a user calls it."""

import json
from xml.etree import ElementTree

import pytest

from hpc_lpm.cli import plan  # noqa: F401  registers it
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def profile_path(tmp_path):
    """Two stages, cut after layer 1, 2, ...: the later, the slower; fewer bytes and more memory."""
    return write_profile(tmp_path / "profile.json", layers=6)


def write_profile(path, layers, first_seconds=1.0):
    Profile(
        model="toy",
        micro_batch=8,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"conv{number}",
                forward_seconds=0.125 if number else first_seconds,
                backward_seconds=0.0,
                output_bytes=1024 * (layers - number),
                parameter_bytes=0,
                activation_bytes=2**20,
            )
            for number in range(layers)
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    ).write(path)
    return path


def call(capsys, *arguments):
    """Return exit code, stdout and stderr of the command line."""
    code = run_guarded(app, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def pareto(profile_path, *arguments):
    return "plan", profile_path, "--stages", 2, "--weights", "live", "--pareto", *arguments


def test_json_has_the_whole_front_and_the_chosen_point(capsys, profile_path):
    arguments = ("--tolerance", 0.25, "--json")
    code, out, _ = call(capsys, *pareto(profile_path, *arguments))
    document = json.loads(out)
    assert code == EXIT_DONE
    # Layers [0, c) hold 2 c activations, those behind 6 - c.
    assert document["points"] == [
        {
            "period_seconds": 1.0 + 0.125 * (cut - 1),
            "boundary_bytes": 1024 * (7 - cut),
            "memory_bytes": 2**20 * max(2 * cut, 6 - cut),
            "cuts": [0, cut, 6],
        }
        for cut in range(1, 6)
    ]
    assert document["chosen"] == 2
    assert (document["model"], document["stages"]) == ("toy", 2)
    assert document["options"]["tolerance"] == 0.25
    assert document["link"]["bandwidth_bytes_per_second"] == 1e9
    assert document["assumptions"] == []


def test_table_marks_the_point_that_the_tolerance_chooses(capsys, profile_path):
    code, out, _ = call(capsys, *pareto(profile_path, "--tolerance", 0.125))
    assert code == EXIT_DONE
    assert "toy in 2 stages: 5 plans" in out
    (chosen,) = (line for line in out.splitlines() if "│ chosen" in line)
    assert chosen.replace("│", " ").split() == [
        *("chosen", "1125.000", "12.5%", "5.0", "4.00", "0", "2", "6")
    ]
    assert "are shown" not in out
    assert "at most 1125.000 ms" in out
    assert "Link: 0 us latency, 1 GB/s (of the profile)." in out


def test_what_an_imported_profile_assumes_is_said(capsys, profile_path):
    profile = Profile.read(profile_path)
    environment = {"link": "assumed", "assumptions": ["layers of a branch are one layer"]}
    profile.model_copy(update={"environment": environment}).write(profile_path)
    _, out, _ = call(capsys, *pareto(profile_path))
    assert "(assumed, see --latency and --bandwidth)." in out
    assert "Assumed: layers of a branch are one layer." in out


def test_bound_leaves_out_longer_periods(capsys, profile_path):
    arguments = ("--pareto-within", 0.25, "--json")
    _, out, _ = call(capsys, *pareto(profile_path, *arguments))
    assert [point["period_seconds"] for point in json.loads(out)["points"]] == [1, 1.125, 1.25]


@pytest.mark.parametrize("tolerance", [0.0, 0.9, 10.0])
def test_wide_front_is_thinned_to_rows_that_keep_its_ends_and_the_chosen_point(
    capsys, tmp_path, tolerance
):
    path = write_profile(tmp_path / "wide.json", layers=60, first_seconds=8.0)
    code, out, _ = call(capsys, *pareto(path, "--tolerance", tolerance))
    rows = [line for line in out.splitlines() if "%" in line]
    assert code == EXIT_DONE
    assert len(rows) <= 20
    assert f"{len(rows)} of the 59 plans are shown; --json prints all." in out
    assert "0 1 60" in rows[0]
    assert "0 59 60" in rows[-1]
    assert sum("chosen" in row for row in rows) == 1
    document = json.loads(call(capsys, *pareto(path, "--tolerance", tolerance, "--json"))[1])
    cuts = " ".join(str(cut) for cut in document["points"][document["chosen"]]["cuts"])
    assert any("chosen" in row and cuts in row for row in rows)


def test_plan_written_is_that_of_the_chosen_point(capsys, profile_path, tmp_path):
    path = tmp_path / "plan.json"
    code, out, _ = call(capsys, *pareto(profile_path, "--tolerance", 0.25, "--out", path))
    assert code == EXIT_DONE
    assert f"Written to {path}." in out
    written = Plan.read(path)
    assert (written.cuts, written.period_seconds) == ((0, 3, 6), 1.25)
    assert written.planner == "pareto"


def test_figure_shows_every_point_and_marks_the_chosen_one(capsys, profile_path, tmp_path):
    path = tmp_path / "front.svg"
    arguments = ("--tolerance", 0.25, "--figure", path)
    code, out, _ = call(capsys, *pareto(profile_path, *arguments))
    assert code == EXIT_DONE
    assert f"Written to {path}." in out
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    words = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    for expected in (
        "toy in 2 stages: 5 plans",
        "period, ms per micro-batch",
        "bytes over the boundaries, KiB a micro-batch",
        "memory of the fullest stage, MiB",
        "chosen: 1250.00 ms, 4 KiB sent, 6 MiB held",
        "periods within the tolerance of 0.25",
    ):
        assert expected in words
    dots = next(group for group in root.iter(f"{SVG}g") if group.get("id") == "PathCollection_1")
    assert len(list(dots.iter(f"{SVG}use"))) == 5


def test_front_of_one_plan_can_be_shown_and_drawn(capsys, profile_path, tmp_path):
    path = tmp_path / "front.svg"
    arguments = ("plan", profile_path, "--stages", 1, "--pareto", "--figure", path)
    code, out, _ = call(capsys, *arguments)
    assert code == EXIT_DONE
    assert "toy in 1 stages: 1 plan\n" in "\n".join(line.rstrip() for line in out.splitlines())
    words = "".join(ElementTree.parse(path).getroot().itertext())
    assert "chosen: 1625.00 ms, 0 KiB sent, 6 MiB held" in words


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--figure", "front.svg"), "--figure is front.svg without --pareto"),
        (("--pareto-within", 0.5), "--pareto-within is 0.5 without --pareto"),
        (("--pareto", "--figure", "front.png"), "'front.png', accepted is a file that ends in"),
        (("--pareto", "--planner", "uniform"), "--planner is 'uniform' with --pareto"),
        (("--pareto", "--pareto-within", 0.01), "not below the --tolerance of 0.02"),
        (("--pareto", "--memory-limit", 100), "no plan of 2 stages"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(capsys, profile_path, arguments, sentence):
    code, out, err = call(capsys, "plan", profile_path, "--stages", 2, *arguments)
    assert code == EXIT_BAD_INPUT
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_a_front_needs_its_number_of_stages(capsys, profile_path):
    options = ("--devices", 2, "--global-batch", 4, "--pareto")
    code, _, err = call(capsys, "plan", profile_path, *options)
    assert code == EXIT_BAD_INPUT
    assert "--pareto is given without --stages" in err


def test_a_front_of_devices_that_hold_several_stages_is_refused(capsys, profile_path):
    command = ("plan", profile_path, "--stages", 2, "--schedule", "zb-v", "--pareto")
    code, out, err = call(capsys, *command)
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert "--pareto is given with --schedule zb-v, under which each device holds 2 stages" in err
