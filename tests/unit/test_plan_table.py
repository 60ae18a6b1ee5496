"""The table of a plan as people see it: narrow, complete, and without surprises in a pipe."""

import io

import pytest
from rich.console import Console

from hpc_lpm.cli import plan_table
from hpc_lpm.cli.plan_table import show_plan
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import explain
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def profile_of(names, seconds, size=10**9):
    return Profile(
        model="drawn",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=name,
                forward_seconds=forward,
                backward_seconds=2 * forward,
                output_bytes=size,
                parameter_bytes=size,
                activation_bytes=size,
            )
            for name, forward in zip(names, seconds, strict=True)
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e10),
    )


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that draws a plan on a console, of a terminal or of a pipe, as lines."""

    def draw(profile, cuts, terminal_width=None, encoding="utf-8", **options):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        screen = Console(
            file=stream,
            highlight=False,
            width=terminal_width or 140,
            force_terminal=terminal_width is not None,
            color_system=None,
            legacy_windows=False,
        )
        monkeypatch.setattr(plan_table, "console", lambda: screen)
        model = CostModel(profile, len(cuts) - 1, PlanOptions(weights="live", **options))
        show_plan(price_plan(model, cuts, "lpm", "0" * 64), model, explain(model, cuts))
        stream.flush()
        return raw.getvalue().decode(encoding).splitlines()

    return draw


LONG_NAMES = [f"transformer.encoder.layers.{i}.attention.self.query_projection" for i in range(64)]


@pytest.mark.parametrize("limit", [None, 10**12])
@pytest.mark.parametrize("terminal_width", [None, 80])
def test_64_stages_of_long_names_fit_into_80_columns(drawn, terminal_width, limit):
    profile = profile_of(LONG_NAMES, [1.0] * 63 + [321.987])
    lines = drawn(profile, tuple(range(65)), terminal_width, memory_limit=limit)
    assert max(len(line) for line in lines) <= 80
    rows = [line for line in lines if line[:5].strip().isdecimal()]
    assert [int(line[:5]) for line in rows] == list(range(64))
    # Every name is shortened to something that tells it from the others.
    assert len({line.split()[1] for line in rows}) == 64
    assert rows[63].endswith("########## 100%")
    assert "965.961" in rows[63]
    assert ("931.32" in rows[0]) == (limit is not None)


def test_no_number_is_cut_in_a_terminal_that_is_too_narrow(drawn):
    profile = profile_of(LONG_NAMES, [1.0] * 64)
    lines = drawn(profile, tuple(range(65)), 40, memory_limit=10**12)
    assert all(line.endswith("%") for line in lines if line[:5].strip().isdecimal())
    assert len([line for line in lines if line.endswith("########## 100%")]) == 64


def test_a_wide_terminal_shows_more_of_the_names(drawn):
    profile = profile_of(LONG_NAMES, [1.0] * 64)
    assert not any("layers.63.attention" in line for line in drawn(profile, (0, 63, 64), 80))
    assert any("layers.63.attention" in line for line in drawn(profile, (0, 63, 64), 120))


def test_first_and_last_layer_share_the_room(drawn):
    names = ["in", *(f"block{i}" for i in range(4)), "a.long.name.of.the.last.layer"]
    row = next(line for line in drawn(profile_of(names, [1.0] * 6), (0, 6)) if line[:5] == "    0")
    # Words are cut from the front, no more of them than needed.
    assert "in - a.l.n.of.the.last.layer " in row


@pytest.mark.parametrize(
    ("name", "characters", "expected"),
    [
        ("encoder.layers.12.query", 23, "encoder.layers.12.query"),
        ("encoder.layers.12.query", 22, "e.layers.12.query"),
        ("encoder.layers.12.query", 12, "e.l.12.query"),
        ("encoder.layers.12.query", 11, "~12.query"),
        ("encoder.layers.12.query", 8, "~12.~ery"),
        ("node5..node16 Add", 16, "n5..node16 Add"),
        ("node6 MaxPool2d", 12, "node6 MaxPo~"),
        ("node5..node16 Add", 13, "n5..node16 A~"),
    ],
)
def test_long_names_keep_their_numbers_as_long_as_they_can(name, characters, expected):
    assert plan_table._shortened(name, characters) == expected


def test_units_follow_the_largest_values(drawn):
    lines = drawn(profile_of(["a", "b"], [1e-4, 2e-5], size=1000), (0, 1, 2))
    heads = lines[2].split(), lines[3].split()
    assert heads == (
        ["compute", "transfer", "memory"],
        ["stage", "layers", "us", "us", "KiB", "load"],
    )
    assert lines[5].split()[:5] == ["0", "a", "300.000", "0.100", "4.88"]
    assert lines[6].split()[:5] == ["1", "b", "60.000", "-", "3.91"]


def test_facts_below_the_table(drawn):
    text = " ".join(" ".join(drawn(profile_of(["a", "b"], [1.0, 3.0]), (0, 1, 2))).split())
    assert "period 9.000 s a micro-batch, set by the compute of stage 1" in text
    assert "speedup 1.33x over one device, at most 1.33x by the coarsest layer, b" in text
    assert "sent 953.7 MiB over all boundaries" in text
    assert "link 0 us latency, 10 GB/s (of the profile)" in text
    assert "hint stage 1 holds b alone: split that layer" in text


def test_links_of_the_boundaries_are_named_with_theirs(drawn):
    slow = {"latency_seconds": 1e-4, "bandwidth_bytes_per_second": 1e9}
    fast = {"latency_seconds": 1e-6, "bandwidth_bytes_per_second": 2.5e10}
    profile = profile_of([str(number) for number in range(20)], [1.0] * 20)

    def link(*links):
        cuts = (*range(len(links) + 1), 20)
        return " ".join(" ".join(drawn(profile, cuts, links=links)).split())

    three = link(fast, slow, fast)
    assert (
        "link 1 us latency, 25 GB/s behind stage 0, 2; 100 us latency, 1 GB/s behind stage 1"
        in three
    )
    assert "link 1 us latency, 25 GB/s at every boundary" in link(fast, fast)
    assert "1 us latency, 25 GB/s behind 9 stages; 100 us" in link(*[fast] * 9, slow)


def test_names_are_not_read_as_markup(drawn):
    lines = drawn(profile_of(["[red]a[/red]", "[b"], [1.0, 1.0]), (0, 1, 2))
    assert any("[red]a[/red]" in line for line in lines)
    assert any("[b " in line for line in lines)


def test_a_pipe_that_takes_ascii_alone_gets_it(drawn):
    lines = drawn(profile_of(LONG_NAMES, [1.0] * 64), (0, 32, 64), encoding="ascii")
    assert max(len(line) for line in lines) <= 80


def test_a_model_without_times_is_shown(drawn):
    lines = drawn(profile_of(["a", "b"], [0.0, 0.0], size=0), (0, 1, 2))
    assert any("0.000 us a micro-batch" in line for line in lines)
