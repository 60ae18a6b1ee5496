"""Schedules from tables in torch's compute-only format: run as written, or refused."""

import csv
import re
from pathlib import Path

import pytest
from torch.distributed.pipelining import schedules as theirs

from hpc_lpm.cli import plan, simulate  # noqa: F401  registers them
from hpc_lpm.cli.app import app
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, EXIT_DONE, run_guarded
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.drawing import draw
from hpc_lpm.schedules.dualpipe_v import DualPipeV
from hpc_lpm.schedules.instructions import Backward, BackwardInput, BackwardWeights, Forward
from hpc_lpm.schedules.registry import schedule_named
from hpc_lpm.schedules.validate import validate
from hpc_lpm.schedules.zero_bubble_v import ZeroBubbleV

PASSES = Forward | Backward | BackwardInput | BackwardWeights


def written(folder: Path, *lines: str) -> str:
    """Write a table and return the name of its schedule."""
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return f"schedule:{path}"


def torch_table(folder: Path, kind: type, devices: int, micro_batches: int) -> Path:
    """Write a table as torch does, with a schedule that holds nothing but the order of passes."""
    asked = object.__new__(kind)
    asked.pp_group_size, asked._n_microbatches = devices, micro_batches
    asked._num_stages = asked.num_stages = 2 * devices
    asked.pipeline_order = {
        rank: asked._calculate_single_rank_operations(rank) for rank in range(devices)
    }
    path = folder / "torch.csv"
    theirs.PipelineScheduleMulti._dump_csv(asked, path)
    return path


def passes(schedule: Schedule, stages: int, micro_batches: int, total: int) -> list[list[object]]:
    programmes = schedule.programmes(stages, micro_batches, total)
    return [[item for item in each if isinstance(item, PASSES)] for each in programmes]


@pytest.mark.parametrize(
    ("kind", "ours"),
    [(theirs.ScheduleZBVZeroBubble, ZeroBubbleV()), (theirs.ScheduleDualPipeV, DualPipeV())],
)
def test_a_table_that_torch_writes_is_the_schedule_of_the_same_name(
    tmp_path: Path, kind: type, ours: Schedule
) -> None:
    path = torch_table(tmp_path, kind, 3, 7)
    found = schedule_named(f"schedule:{path}")
    assert found.placement(6) == ours.placement(6)
    assert passes(found, 6, 7, 17) == passes(ours, 6, 7, 17)
    assert found.in_flight_bounds(6, 7) == ours.in_flight_bounds(6, 7)
    assert (found.chunks, found.splits_backward, found.flushes) == (2, True, True)
    programmes = found.programmes(6, 7, 17)
    validate(programmes, 7, 17, found.in_flight_bounds(6, 7), found.placement(6))


def test_empty_cells_and_any_placement_are_accepted(tmp_path: Path) -> None:
    # Stages 0 and 1 lie on the first device, 2 and 3 on the second.
    name = written(
        tmp_path,
        "0F0,1F0,,,,,1I0,0B0,1W0",
        ",,2F0,3F0,3B0,2B0,,",
    )
    schedule = schedule_named(name)
    assert schedule.placement(4).held == ((0, 1), (2, 3))
    lines = draw(schedule.programmes(4, 1, 2), placement=schedule.placement(4)).splitlines()
    assert [" ".join(line.split()[2:]) for line in lines] == [
        "F0 F0.1 . . . . I0.1 B0 W0.1u F1 F1.1 . . . . I1.1 B1 W1.1u",
        ". . F0 F0.1 B0.1 B0u . . . . . F1 F1.1 B1.1 B1u . . .",
    ]


def test_a_table_is_a_strategy_too(tmp_path: Path) -> None:
    name = written(tmp_path, "0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1")
    assert strategy_named(name).name == name
    assert strategy_named(name) is strategy_named(name)
    assert schedule_named(name).chunks == 1


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            ["0F0,0Q0"],
            "line 1, cell 2 of schedule .* is '0Q0', accepted are empty cells and passes",
        ),
        (["0F0,0B0", "1F0,1SEND_B0"], "line 2, cell 2 .* without communication"),
        (["0F0,0B0,0REDUCE_GRAD"], "line 1, cell 3 .* is '0REDUCE_GRAD'"),
        (["0F0,-1B0"], "line 1, cell 2 .* is '-1B0'"),
        (["0F0,()OVERLAP_F_B"], "line 1, cell 2 "),
        (["0F0,__import__('os')"], "line 1, cell 2 "),
        (["0F0,0B0", ",,"], "line 2 of schedule .* has no passes"),
        (["0F0,0B0", "0F1,0B1"], "passes of stage 0 on several lines"),
        (["0F0,0B0", "2F0,2B0"], "has no passes of stage 1, but of stage 2"),
        (["0F0,0B0,1F0,1B0", "2F0,2B0"], "have passes of 2, 1 stages, accepted are equally many"),
        (["0F0,0B0,0F1"], "unsound at stage 0, .*1 backwards of the step are still"),
        (["0F0,0F1,0B1,0B0"], "B0 comes after that of micro-batch 1"),
        (["0F0,0I0"], "1 backwards of the step are still to come"),
        (["0F0,0B0", "1B0,1F0"], "B0 comes before F0"),
        (["0F0,0F2,0B0,0B2"], "1 backwards of the step are still to come"),
        (["0F1,0F0,0B0,0B1", "1F0,1B0,1F1,1B1"], "deadlock"),
        (["0F1,0F0,0B0,0B1", "1F0,1B0,1F1,1B1"], r"\(0B0 in line 1 of the table\)"),
        (["0F0,0B0", "1B0,1F0"], r"\(1B0 in line 2 of the table\)"),
        (["0F0,0I0"], r"\(the end of line 1 of the table\)"),
        (["0F0,0B0,,0I0", "1F0,1B0"], "line 1, cell 4 .* is '0I0', but cell 2 is '0B0' already"),
        (["0F0,0B0,0W0", "1F0,1B0"], "line 1, cell 3 .* is '0W0', but cell 2 is '0B0' already"),
        (["0F0,0B0", "1F0,1I0,1B0"], "line 2, cell 3 .* is '1B0', but cell 2 is '1I0' already"),
        (["0F0,0F0,0B0"], "line 1, cell 2 .* is '0F0', but cell 1 is '0F0' already: .* once"),
    ],
)
def test_what_is_no_sound_schedule_is_refused_with_the_place(
    tmp_path: Path, lines: list[str], sentence: str
) -> None:
    with pytest.raises(InputError, match=re.compile(sentence, re.DOTALL)):
        schedule_named(written(tmp_path, *lines))


def test_a_byte_order_mark_is_none_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "marked.csv").write_bytes(b"\xef\xbb\xbf0F0,0F1,0B0,0B1\r\n1F0,1B0,1F1,1B1\r\n")
    schedule = schedule_named(f"schedule:{tmp_path}/marked.csv")
    plain = schedule_named(written(tmp_path, "0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1"))
    assert passes(schedule, 2, 2, 4) == passes(plain, 2, 2, 4)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read .*no-such"):
        schedule_named(f"schedule:{tmp_path}/no-such.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match="is an empty file"):
        schedule_named(f"schedule:{tmp_path}/empty.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        schedule_named(f"schedule:{tmp_path}/binary.csv")


def test_other_numbers_than_the_tables_are_refused(tmp_path: Path) -> None:
    schedule = schedule_named(written(tmp_path, "0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1"))
    with pytest.raises(InputError, match=r"there are 3 stages, but .* is a table of 2, 1 on each"):
        schedule.programmes(3, 2, 4)
    with pytest.raises(InputError, match=r"2 devices and 3 micro-batches .* a table of 2 and 2"):
        schedule.programmes(2, 3, 3)


def test_a_module_called_schedule_is_still_a_module() -> None:
    with pytest.raises(InputError, match="module 'schedule'"):
        schedule_named("schedule:mine")


def test_reading_a_table_runs_nothing_of_it(tmp_path: Path) -> None:
    # A spreadsheet's formula is only text here.
    path = tmp_path / "formula.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerow(["=1+1", "0F0"])
    with pytest.raises(InputError, match=re.escape("cell 1 of schedule")):
        schedule_named(f"schedule:{path}")


def test_the_table_of_the_documents_is_a_sound_schedule_in_a_v(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs/how-to/add-a-schedule.md").read_text()
    (table,) = re.findall(r"```text\n(.*?)```", guide, re.DOTALL)
    schedule = schedule_named(written(tmp_path, *table.splitlines()))
    assert schedule.placement(4) == ZeroBubbleV().placement(4)
    assert schedule.in_flight_bounds(4, 2) == [2, 2, 2, 1]


def test_plans_and_simulations_take_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=0.001,
            backward_seconds=0.002,
            output_bytes=100,
            parameter_bytes=1000,
            activation_bytes=7,
        )
        for number in range(4)
    )
    link = LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9)
    profile, out = tmp_path / "profile.json", tmp_path / "plan.json"
    Profile(
        model="toy", micro_batch=2, device="cpu", dtype="float32", layers=layers, link=link
    ).write(profile)
    name = written(tmp_path, "0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1")
    asked = ["--micro-batches", "2", "--schedule", name, "--out", str(out)]
    assert run_guarded(app, ["plan", str(profile), "--stages", "2", *asked]) == EXIT_DONE
    assert Plan.read(out).options["schedule"] == name
    assert run_guarded(app, ["simulate", str(profile), "--plan", str(out)]) == EXIT_DONE
    assert "Period 9.000 ms a micro-batch" in capsys.readouterr().out
    assert run_guarded(app, ["plan", str(profile), "--stages", "3", *asked]) == EXIT_BAD_INPUT
    assert "is a table of 2, 1 on each of 2 devices" in capsys.readouterr().err
