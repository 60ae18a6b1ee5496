"""`plan` and `simulate` on PipeDream's graphs and on other links, as a user calls them."""

import hashlib
import json

import pytest
from pipedream_files import RESIDUAL, node

from hpc_lpm.cli import plan, simulate  # noqa: F401  registers them
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.errors import InputError
from hpc_lpm.profile_file import LinkProfile, Profile
from hpc_lpm.profile_formats.read import read_profile, with_link


def call(capsys, *arguments):
    """Return exit code, stdout and stderr of the command line."""
    code = run_guarded(app, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def graph_path(tmp_path):
    path = tmp_path / "net.graph.txt"
    path.write_text(RESIDUAL)
    return path


def test_a_graph_is_planned_as_it_is(capsys, graph_path):
    code, out, _ = call(capsys, "plan", graph_path, "--stages", 2, "--weights", "live")
    assert code == EXIT_DONE
    assert "net in 2 stages" in out
    assert "node5 Linear" in out
    text = " ".join(out.split())
    assert "link 5 us latency, 12.5 GB/s (assumed, see --latency and --bandwidth)" in text
    assert "assumed the profiled batch counts as one micro-batch of one sample" in text


def test_json_of_a_planned_graph_tells_the_same(capsys, graph_path):
    code, out, _ = call(capsys, "plan", graph_path, "--stages", 2, "--weights", "live", "--json")
    document = json.loads(out)
    assert code == EXIT_DONE
    assert [stage["stop"] for stage in document["stages"]] == [2, 3]
    assert document["profile_sha256"] == hashlib.sha256(graph_path.read_bytes()).hexdigest()
    assert document["link"] == {
        "latency_seconds": 5e-06,
        "bandwidth_bytes_per_second": 12.5e9,
        "overlap": True,
        "source": "assumed",
    }
    assert len(document["assumptions"]) == 1
    stages = document["explanation"]["stages"]
    assert [stage["last_layer"] for stage in stages] == ["node3..node4 Add", "node5 Linear"]
    assert stages[0]["load"] == 1.0


def test_a_link_given_by_hand_takes_the_place_of_an_assumed_one(capsys, graph_path):
    # 300 bytes behind the first layer, 500 behind the second: at 1 byte a second bytes decide.
    arguments = ("plan", graph_path, "--stages", 2, "--tolerance", 0, "--json")
    code, out, _ = call(capsys, *arguments, "--bandwidth", 1, "--latency", 7)
    document = json.loads(out)
    assert code == EXIT_DONE
    assert document["period_seconds"] == 307.0
    assert document["link"]["source"] == "given"
    assert "link" in document["explanation"]["hints"][0]
    document = json.loads(call(capsys, *arguments, "--latency", "7000ms")[1])
    assert document["link"]["source"] == "latency given, bandwidth assumed"
    assert document["link"]["bandwidth_bytes_per_second"] == 12.5e9


def test_a_link_given_by_hand_takes_the_place_of_a_measured_one(capsys, graph_path, tmp_path):
    path = tmp_path / "profile.json"
    profile = read_profile(graph_path)
    measured = profile.model_copy(update={"environment": {"link": "measured"}})
    measured.write(path)
    arguments = ("plan", path, "--stages", 2, "--json")
    assert json.loads(call(capsys, *arguments)[1])["link"]["source"] == "measured"
    document = json.loads(call(capsys, *arguments, "--bandwidth", 2.5e6)[1])
    assert document["link"]["source"] == "latency measured, bandwidth given"
    assert document["explanation"]["stages"][0]["transfer_seconds"] == pytest.approx(
        5e-6 + document["stages"][0]["send_bytes"] / 2.5e6
    )


def test_without_a_link_given_a_profile_stays_as_it_is(graph_path):
    profile = read_profile(graph_path)
    assert with_link(profile) is profile


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--latency", "-1"), "--latency is '-1', accepted are seconds from 0"),
        (("--latency", "nan"), "--latency is 'nan'"),
        (("--bandwidth", "0"), "--bandwidth is 0.0, accepted are bytes a second from 1"),
        (("--bandwidth", "inf"), "--bandwidth is inf"),
    ],
)
def test_a_link_out_of_range_is_bad_input(capsys, graph_path, options, sentence):
    code, out, err = call(capsys, "plan", graph_path, "--stages", 2, *options)
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_faulty_graph_is_one_sentence_with_file_and_line(capsys, graph_path):
    graph_path.write_text(RESIDUAL + "\n\tnode5 -- node9")
    code, out, err = call(capsys, "plan", graph_path, "--stages", 2)
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert f"{graph_path}, line 11: the edge from node5 to node9" in err
    assert err.count("\n") == 1


def test_a_plan_of_a_graph_is_simulated(capsys, graph_path, tmp_path):
    path = tmp_path / "plan.json"
    call(capsys, "plan", graph_path, "--stages", 2, "--weights", "live", "--out", path)
    code, out, _ = call(capsys, "simulate", graph_path, "--plan", path)
    assert code == EXIT_DONE
    assert "12.5 GB/s (assumed" in out
    assert "Assumed: the profiled batch counts as one micro-batch of one sample" in out
    _, out, _ = call(capsys, "simulate", graph_path, "--plan", path, "--latency", 3, "--json")
    document = json.loads(out)
    assert document["period_seconds"] >= 3.0
    assert document["link"]["latency_seconds"] == 3.0


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("vgg16.graph.txt", "vgg16"),
        ("alexnet/graph.txt", "alexnet"),
        ("resnet.txt", "resnet"),
        ("my.net.profile", "my.net.profile"),
    ],
)
def test_a_graph_is_named_after_its_file_or_folder(tmp_path, path, model):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(node("a", "Add", 1))
    assert read_profile(file).model == model


def test_json_is_known_by_its_first_character_whatever_the_file_is_called(graph_path, tmp_path):
    profile = read_profile(graph_path)
    path = tmp_path / "profile.txt"
    profile.write(path)
    assert read_profile(path) == profile == Profile.read(path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.json", b"node1 -- Add", "is not JSON"),
        ("p.txt", b"[1, 2]", "accepted are NAME -- DESCRIPTION"),
        ("p.txt", b"\xff\xfe", "cannot be read"),
        ("p.txt", None, "does not exist"),
    ],
)
def test_what_is_no_profile_is_bad_input(tmp_path, name, content, sentence):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_profile(path)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("layers", 1e10, r"has a pass of more than 1e\+09 seconds in layer node2 Conv2d"),
        ("link", 1e10, r"a latency of 1e\+10 seconds, accepted are at least 1 and at most 1e\+09"),
        ("link", 0.5, "has a link of 0.5 bytes a second"),
    ],
)
def test_times_and_speeds_beyond_anything_real_are_refused(
    graph_path, tmp_path, place, value, sentence
):
    profile = read_profile(graph_path)
    first, *others = profile.layers
    slow = LinkProfile(
        latency_seconds=value if value > 1 else 0.0,
        bandwidth_bytes_per_second=min(value, 1e9),
    )
    changes = {
        "layers": (first.model_copy(update={"backward_seconds": value}), *others),
        "link": slow,
    }
    path = tmp_path / "profile.json"
    profile.model_copy(update={place: changes[place]}).write(path)
    with pytest.raises(InputError, match=sentence):
        read_profile(path)
