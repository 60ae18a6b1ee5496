"""`plan --cuts` and `--cut-only-at` as a user calls them."""

import hashlib
import json

import pytest
from test_plan_command import call, profile_path  # noqa: F401  a fixture

from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE
from hpc_lpm.planning.plan import Plan

LIVE = ("--weights", "live")


@pytest.fixture
def planned(capsys, profile_path, tmp_path):  # noqa: F811
    """Call `plan` on the profile of six layers, conv0 to conv5, and return plan and stdout."""

    def run(*arguments):
        path = tmp_path / "plan.json"
        code, out, err = call(capsys, "plan", profile_path, *LIVE, *arguments, "--out", path)
        assert code == EXIT_DONE, err
        return Plan.read(path), out

    return run


@pytest.fixture
def refused(capsys, profile_path):  # noqa: F811
    def run(*arguments):
        code, out, err = call(capsys, "plan", profile_path, *LIVE, *arguments)
        assert (code, out, err.count("\n")) == (EXIT_BAD_INPUT, "", 1)
        return err

    return run


def test_a_split_of_ones_own_is_priced_and_written(planned, profile_path):  # noqa: F811
    plan, out = planned("--cuts", "1,4")
    assert (plan.planner, plan.cuts) == ("own", (0, 1, 4, 6))
    assert plan.profile_sha256 == hashlib.sha256(profile_path.read_bytes()).hexdigest()
    assert [stage.compute_seconds for stage in plan.stages] == pytest.approx([0.003, 0.009, 0.006])
    assert plan.period_seconds == pytest.approx(0.009)
    assert plan.boundary_bytes == 1000 + 1003
    assert "toy in 3 stages cut as given" in out
    assert "set by the compute of stage 1" in out


def test_names_and_the_right_number_of_stages_give_the_same_split(planned):
    by_position, _ = planned("--cuts", "1,4")
    by_name, _ = planned("--cuts", "conv0, conv3", "--stages", 3)
    assert by_name == by_position


def test_a_split_of_ones_own_uses_options_of_its_stages(planned):
    plan, _ = planned("--cuts", "2", "--speeds", "1,0.5", "--memory-limit", "100000,100000")
    assert plan.stages[1].compute_seconds == pytest.approx(0.024)
    linked, _ = planned("--cuts", "2", "--links", "0.5:1e9", "--no-overlap")
    assert linked.period_seconds == pytest.approx(0.012 + 2 * (0.5 + 1001e-9))


def test_the_explanation_is_in_the_json(capsys, profile_path):  # noqa: F811
    code, out, _ = call(capsys, "plan", profile_path, *LIVE, "--cuts", "1", "--json")
    document = json.loads(out)
    assert code == EXIT_DONE
    assert document["explanation"]["bottleneck"] == "the compute of stage 1"
    assert document["explanation"]["stages"][1]["first_layer"] == "conv1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--cuts", "6"), "--cuts has the position 6, accepted for the 6 layers of toy are 1 to 5"),
        (("--cuts", "conv9"), "--cuts names 'conv9'"),
        (("--cuts", "1,,2"), "--cuts is '1,,2'"),
        (("--cuts", "1,4", "--stages", 2), "--stages is 2, but --cuts 1,4 makes 3 stages"),
        (("--cuts", "1", "--planner", "lpm"), "--planner lpm is given with --cuts"),
        (("--cuts", "1", "--pareto"), "--pareto is given with --cuts"),
        (("--cuts", "1", "--devices", 2), "--cuts and --devices are both given"),
        (("--cuts", "1", "--global-batch", 8), "--global-batch is given with --cuts"),
        (
            ("--cuts", "1", "--memory-limit", 5000),
            "stage 1 of --cuts (layers conv1 to conv5) needs 9,000 bytes and its limit is 5,000",
        ),
        (("--cuts", "1", "--cut-only-at", "conv1"), "--cut-only-at conv1 does not allow"),
        (("--stages", 2, "--cut-only-at", "conv"), "pattern 'conv', which matches no layer"),
        (("--stages", 4, "--cut-only-at", "conv1,conv3"), "ask for at most 3 stages"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(refused, arguments, sentence):
    assert sentence in refused(*arguments)


def test_cuts_are_searched_at_the_named_places_alone(planned):
    plan, out = planned("--stages", 2, "--cut-only-at", "conv0,conv3")
    assert plan.cuts == (0, 4, 6)
    assert plan.options["cut_only_at"] == ["conv0", "conv3"]
    assert "conv4 - conv5" in out
    rival, _ = planned("--stages", 2, "--cut-only-at", "conv0,conv1,conv3", "--planner", "uniform")
    assert rival.cuts == (0, 2, 6)


def test_the_front_and_the_search_over_devices_keep_to_the_named_places(capsys, profile_path):  # noqa: F811
    only = ("--cut-only-at", "conv0,conv4", "--json")
    _, out, _ = call(capsys, "plan", profile_path, *LIVE, "--stages", 2, "--pareto", *only)
    assert {tuple(point["cuts"]) for point in json.loads(out)["points"]} <= {(0, 1, 6), (0, 5, 6)}
    devices = ("--devices", 2, "--global-batch", 16)
    _, out, _ = call(capsys, "plan", profile_path, *LIVE, *devices, *only)
    cuts = {tuple(candidate["cuts"]) for candidate in json.loads(out)["search"]["candidates"]}
    assert cuts <= {(0, 6), (0, 1, 6), (0, 5, 6)}
    assert len(cuts) == 2
