"""PipeDream's graphs as profiles."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipedream_files import RESIDUAL, node

from hpc_lpm.errors import InputError
from hpc_lpm.profile_file import LayerProfile
from hpc_lpm.profile_formats.pipedream_graph import parse_pipedream_graph


def parsed(text):
    return parse_pipedream_graph(text, model="net", where="net.graph.txt")


def test_a_residual_block_becomes_one_layer_and_milliseconds_seconds():
    assert parsed(RESIDUAL).layers == (
        LayerProfile(
            name="node2 Conv2d",
            forward_seconds=0.0011,
            backward_seconds=0.0,
            output_bytes=300,
            parameter_bytes=432,
            activation_bytes=300,
        ),
        LayerProfile(
            name="node3..node4 Add",
            forward_seconds=0.002,
            backward_seconds=0.00325,
            output_bytes=500,
            parameter_bytes=576,
            activation_bytes=900,
        ),
        LayerProfile(
            name="node5 Linear",
            forward_seconds=0.0005,
            backward_seconds=0.0015,
            output_bytes=64,
            parameter_bytes=72,
            activation_bytes=64,
        ),
    )


def test_what_the_file_does_not_tell_is_marked_as_assumed():
    profile = parsed(RESIDUAL)
    assert (profile.model, profile.micro_batch, profile.dtype) == ("net", 1, "float32")
    assert profile.environment["link"] == "assumed"
    assert profile.link.bandwidth_bytes_per_second == 12.5e9
    assert any("batch" in sentence for sentence in profile.environment["assumptions"])


def test_sizes_of_several_outputs_are_summed():
    text = node("a", "LSTM(4, 4)", 1, 1, "[6291456.0; 131072.0; 0.5e1]", 1)
    assert parsed(text).layers[0].output_bytes == 6291456 + 131072 + 5


def test_items_that_nobody_reads_do_not_keep_layers_from_being_cut():
    lines = [
        node("lstm", "LSTM(4, 4)", 1, 1, "[40.0; 8.0]", 1),
        node("output", "__getitem__(0)", 0, 0, 40),
        node("state", "__getitem__(1)", 0, 0, 8),
        node("head", "Linear(4, 2)", 1, 1, 20, 1),
        "\tlstm -- output",
        "\tlstm -- state",
        "\toutput -- head",
    ]
    layers = parsed("\n".join(lines)).layers
    assert [layer.name for layer in layers] == ["lstm LSTM", "output __getitem__", "head Linear"]
    assert [layer.output_bytes for layer in layers] == [48, 40, 20]


def test_an_item_that_is_the_whole_graph_is_kept():
    assert parsed(node("a", "__getitem__(0)", 1)).layers[0].forward_seconds == 0.001


def test_several_sources_and_sinks_stay_in_the_blocks_at_the_ends():
    lines = [
        node("left", "Embedding(9, 4)", 1, 0, 10),
        node("right", "Embedding(9, 4)", 2, 0, 20),
        node("join", "Add", 3, 0, 30),
        node("main", "Linear(4, 2)", 4, 0, 40),
        node("auxiliary", "Linear(4, 2)", 5, 0, 50),
        "\tleft -- join",
        "\tright -- join",
        "\tjoin -- main",
        "\tjoin -- auxiliary",
    ]
    first, last = parsed("\n".join(lines)).layers
    assert (first.name, first.forward_seconds, first.output_bytes) == ("left..join Add", 0.006, 30)
    assert (last.name, last.forward_seconds, last.output_bytes) == (
        "main..auxiliary Linear",
        0.009,
        90,
    )


def test_an_input_that_is_read_again_later_is_not_cut_off():
    lines = [
        node("image", "Input0", 9, 0, 99),
        node("a", "Conv2d(1, 1)", 1, 0, 10),
        node("b", "Conv2d(1, 1)", 2, 0, 20),
        node("c", "Conv2d(1, 1)", 4, 0, 40),
        "\timage -- a",
        "\ta -- b",
        "\timage -- b",
        "\tb -- c",
    ]
    layers = parsed("\n".join(lines)).layers
    assert [layer.name for layer in layers] == ["a..b Conv2d", "c Conv2d"]
    assert [layer.activation_bytes for layer in layers] == [30, 40]


def test_stage_ids_blank_lines_and_windows_line_ends_play_no_part():
    stamped = RESIDUAL.replace("=72.000", "=72.000 -- stage_id=1")
    assert parsed("\r\n\r\n".join(stamped.split("\n"))).layers == parsed(RESIDUAL).layers


def test_the_same_edge_twice_is_one_dependence():
    assert parsed(RESIDUAL + "\n\tnode4 -- node5").layers == parsed(RESIDUAL).layers


@st.composite
def graphs(draw):
    """Draw lines of a graph, and the exact totals of its times [ms] and parameters."""
    count = draw(st.integers(1, 12))
    times = draw(st.lists(st.integers(0, 10**6), min_size=2 * count, max_size=2 * count))
    parameters = draw(st.lists(st.integers(0, 10**12), min_size=count, max_size=count))
    lines = [
        node(f"n{i}", "Op", f"{times[i] / 1000:.3f}", f"{times[count + i] / 1000:.3f}", 4, p)
        for i, p in enumerate(parameters)
    ]
    edges = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    for a, b in draw(st.lists(edges, max_size=14)):
        if a < b:
            lines.append(f"\tn{a} -- n{b}")
    forward, backward = sum(times[:count]), sum(times[count:])
    return lines, Fraction(forward, 10**6), Fraction(backward, 10**6), sum(parameters), count


@settings(max_examples=300, deadline=None, derandomize=True)
@given(graphs(), st.randoms(use_true_random=False))
def test_totals_are_kept_in_whatever_order_the_lines_are(graph, random):
    lines, forward, backward, parameters, count = graph
    random.shuffle(lines)
    layers = parsed("\n".join(lines)).layers
    assert sum(layer.parameter_bytes for layer in layers) == parameters
    assert sum(layer.activation_bytes for layer in layers) == 4 * count
    # A dozen layers at most, each rounded once, and rounded sums of them.
    assert sum(layer.forward_seconds for layer in layers) == pytest.approx(float(forward), 1e-14)
    assert sum(layer.backward_seconds for layer in layers) == pytest.approx(float(backward), 1e-14)


def test_a_long_chain_is_read_in_seconds():
    count = 10_000
    lines = [node(f"n{i}", "Linear(1, 1)", "0.001", "0.002", 4, 4) for i in range(count)]
    lines += [f"\tn{i} -- n{i + 1}" for i in range(count - 1)]
    began = time.process_time()
    layers = parsed("\n".join(lines)).layers
    assert time.process_time() - began < 10
    assert [layer.name for layer in layers[-2:]] == ["n9998 Linear", "n9999 Linear"]
    assert len(layers) == count


GOOD = node("a", "Conv2d(1, 1)", 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([GOOD, "", GOOD], "line 3: a is described again after line 1"),
        ([GOOD, "\ta -- b"], "line 2: the edge from a to b needs a node b"),
        (["\ta -- b", GOOD], "line 1: the edge from a to b needs a node b"),
        ([GOOD, "\ta -- a"], "line 2: the edge from a to a closes a cycle of 1 nodes"),
        ([GOOD, "\ta -- a -- a"], "line 2: found .*accepted is <TAB>NAME -- NAME"),
        ([GOOD, "hello"], "line 2: found 'hello'"),
        ([GOOD, "a -- b"], "line 2: found 'a -- b'"),
        ([GOOD.replace("parameter_size", "parameters")], "line 1: a has no parameter_size"),
        ([GOOD, "b -- Add -- forward_compute_time=1"], "line 2: b has no backward_compute_time"),
        ([GOOD + ", parameter_size=1"], "line 1: a has 'parameter_size=1' where one value"),
        ([GOOD + ", 7"], "line 1: a has '7' where one value for each field"),
        ([node("a", "Add", "fast")], "line 1: forward_compute_time of a is 'fast'"),
        ([node("a", "Add", backward="")], "line 1: backward_compute_time of a is ''"),
        ([node("a", "Add", backward="-0.001")], "line 1: backward_compute_time of a is '-0.001'"),
        ([node("a", "Add", "nan")], "line 1: forward_compute_time of a is 'nan'"),
        ([node("a", "Add", "inf")], "line 1: forward_compute_time of a is 'inf'"),
        ([node("a", "Add", "1e999")], "line 1: forward_compute_time of a is '1e999'"),
        ([node("a", "Add", "1e19")], r"line 1: .* accepted is a number from 0 to 1e\+18"),
        ([node("a", "Add", activations="[]")], r"line 1: activation_size of a is '\[\]'"),
        ([node("a", "Add", activations="[1.0; -2]")], "line 1: activation_size of a is"),
        ([node("a", "Add", parameters="[1.0; 2.0")], "line 1: parameter_size of a is"),
    ],
)
def test_a_fault_is_one_sentence_with_the_line(lines, sentence):
    with pytest.raises(InputError, match=rf"^profile net\.graph\.txt, {sentence}") as caught:
        parsed("\n".join(lines))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_cycle_is_named_by_a_line_on_it():
    lines = [node(name, "Add") for name in "abcde"]
    lines += ["\ta -- b", "\tb -- c", "\tc -- d", "\td -- b", "\td -- e"]
    with pytest.raises(InputError, match="closes a cycle of 3 nodes") as caught:
        parsed("\n".join(lines))
    assert any(
        f"line {line}: the edge from {a} to {b} " in str(caught.value)
        for line, a, b in [(7, "b", "c"), (8, "c", "d"), (9, "d", "b")]
    )


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_bad_input(text):
    with pytest.raises(InputError, match=r"net\.graph\.txt has no node"):
        parsed(text)


def test_a_number_too_small_for_a_double_is_0_at_once():
    assert parsed(node("a", "Add", "1e-999999999")).layers[0].forward_seconds == 0
