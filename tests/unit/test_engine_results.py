"""From the ranks' records to the figures of a result."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.checkpoint.tensors import weights_sha256
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.records import SegmentRecord, TracedInstruction
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.times import chrome_trace, times_and_losses
from hpc_lpm.engine.training import Training


def test_independent_ranks_do_not_slow_each_other_down() -> None:
    ranks = [[record([1.0, 2.0], 1.0, [1, 1])], [record([2.0, 4.0], 1.0, [1, 1])]]
    found = times_and_losses(ranks, [8, 8], 0, independent=True)
    assert found.samples_per_second == pytest.approx(8 + 4)


def record(
    ends: list[float],
    busy: float,
    losses: list[float] | None = None,
    samples: list[int] | None = None,
) -> SegmentRecord:
    return SegmentRecord(
        step_end_seconds=ends,
        seconds_by_kind={"forward": busy, "receive": 9.0},
        end_seconds=ends[-1],
        step_losses=losses or [0.0] * len(ends),
        step_samples=samples or [4 if losses else 0] * len(ends),
    )


def test_a_step_lasts_until_the_slowest_rank_has_ended_it() -> None:
    ranks = [
        [record([1.0, 2.0, 3.5], 2.0), record([1.0, 2.0, 3.0], 2.0)],
        [record([0.5, 2.5, 3.0], 3.0, [9, 8, 7]), record([1.5, 1.8, 2.9], 3.0, [6, 5, 4])],
    ]
    found = times_and_losses(ranks, [8] * 6, 1)
    assert found.step_seconds == pytest.approx([1.0, 1.5, 1.0, 1.5, 0.5, 1.0])
    assert found.training_seconds == pytest.approx(6.5)
    assert found.samples_per_second == pytest.approx(8 * 5 / 5.5)
    assert found.idle_share == pytest.approx([1 - 4 / 6.5, 1 - 6 / 6.5])
    assert found.train_loss == [9, 8, 7, 6, 5, 4]


def test_losses_of_replicas_are_averaged_step_by_step() -> None:
    ranks = [[record([1.0, 2.0], 1.0, [1, 2])], [record([1.0, 2.0], 1.0, [3, 6])]]
    assert times_and_losses(ranks, [8] * 2, 0).train_loss == [2, 4]


def test_a_replica_counts_with_the_samples_whose_losses_it_saw() -> None:
    ranks = [
        [record([1.0, 2.0], 1.0, [1, 2], [4, 4])],
        [record([1.0, 2.0], 1.0, [5, 0], [12, 0])],
    ]
    assert times_and_losses(ranks, [16, 4], 0).train_loss == [4, 2]


def test_independent_ranks_train_a_batch_each_a_step() -> None:
    ranks = [[record([1.0, 2.0], 1.0, [1, 2])], [record([1.0, 2.0], 1.0, [1, 2])]]
    together = times_and_losses(ranks, [8, 8], 0)
    apart = times_and_losses(ranks, [8, 8], 0, independent=True)
    assert together.samples_per_second == pytest.approx(8)
    assert apart.samples_per_second == pytest.approx(16)


def test_segments_of_another_partition_count_for_steps_and_losses_alone() -> None:
    earlier = [[record([1.0, 2.0], 2.0), record([1.0, 2.0], 1.0), record([1.0, 3.0], 1.0, [7, 8])]]
    found = times_and_losses([[record([2.0], 1.0, [9])]], [8] * 3, 0, earlier=earlier)
    assert found.step_seconds == pytest.approx([1.0, 2.0, 2.0])
    assert found.train_loss == [7, 8, 9]
    assert found.training_seconds == pytest.approx(5.0)
    assert found.idle_share == pytest.approx([0.5])
    assert found.seconds_by_kind == [{"forward": 1.0, "receive": 9.0}]


def test_a_run_shorter_than_the_discarded_steps_still_has_a_throughput() -> None:
    found = times_and_losses([[record([2.0], 1.0, [1])]], [8], 2)
    assert found.samples_per_second == pytest.approx(4.0)


def test_a_smaller_batch_counts_with_the_samples_it_has() -> None:
    found = times_and_losses([[record([2.0, 3.0, 5.0], 1.0, [1, 1, 1])]], [8, 8, 3], 1)
    assert found.samples_per_second == pytest.approx(11 / 3)


def test_the_trace_has_a_row_a_rank_in_microseconds() -> None:
    trace = json.loads(chrome_trace([[TracedInstruction("forward", 3, 0.5, 0.25)], []]))
    passes = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert passes == [
        {
            "name": "forward",
            "ph": "X",
            "pid": 0,
            "tid": 0,
            "ts": 500000.0,
            "dur": 250000.0,
            "args": {"micro_batch": 3},
        }
    ]


def test_the_fingerprint_sees_every_bit_of_parameters_and_buffers() -> None:
    layers = {0: nn.Linear(3, 2), 1: nn.BatchNorm1d(2)}
    before = weights_sha256(layers, SingleProcess())
    assert weights_sha256(layers, SingleProcess()) == before
    with torch.no_grad():
        value = layers[0].weight[0, 0]
        value.copy_(torch.nextafter(value, torch.tensor(9.0)))
    changed = weights_sha256(layers, SingleProcess())
    assert changed != before
    layers[1].running_mean[1] += 1
    assert weights_sha256(layers, SingleProcess()) not in {before, changed}


def test_the_fingerprint_is_the_documented_one() -> None:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(0.0)
    bits = b"bias:torch.float32:(1,);\0\0\0\0weight:torch.float32:(1, 1);\0\0\x80\x3f"
    expected = hashlib.sha256(hashlib.sha256(bits).hexdigest().encode()).hexdigest()
    assert weights_sha256({0: layer}, SingleProcess()) == expected


def test_a_result_knows_of_how_many_predictions_its_accuracy_is_the_share(tmp_path: Path) -> None:
    settings = TrainSettings(model="mlp", dataset="digits", strategy="sequential", steps=1)
    result = Training(settings, SingleProcess()).run(tmp_path, None)
    assert result is not None
    assert result.test_predictions == len(load_dataset("digits").test)
    right = result.test_accuracy[-1] * result.test_predictions
    assert right == pytest.approx(round(right), abs=1e-6)
