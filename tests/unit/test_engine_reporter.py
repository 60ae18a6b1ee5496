"""What a person and `metrics.jsonl` are told while a run trains."""

import io
import json
import math
import resource
from pathlib import Path

import pytest
from rich.console import Console

from hpc_lpm.engine.evaluation import Evaluation
from hpc_lpm.engine.records import StepNorms
from hpc_lpm.engine.run_reporter import MetricsLog, PlainLines, RunReporter, TerminalBar
from hpc_lpm.errors import TrainingError
from hpc_lpm.files import write_text_atomically


def test_metrics_hold_a_line_a_step_and_a_line_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "metrics.jsonl"
    stream = io.StringIO()
    reporter = RunReporter(
        PlainLines("run", 4, stream),
        MetricsLog(path),
        batch_size=8,
        steps_an_epoch=2,
        learning_rate=lambda step: 0.5 / (step + 1),
        group_rates=lambda step: [],
    )
    reporter.step(0, 2.5, 0.5, False)
    reporter.step(1, None, 0.25, True)
    reporter.norms([[StepNorms(1, math.inf, 3.0)], [StepNorms(1, 1.0, 4.0)]])
    validated = Evaluation(2, 1, "validation", 0.5, {"accuracy": 0.875, "top5_accuracy": None})
    inside = Evaluation(1, 1, "validation", 0.625, {}, 8, 0.25, 0.125, after_epoch=False)
    reporter.evaluation([inside], 4)
    reporter.epoch([validated, Evaluation(2, 1, "test", None, {"accuracy": 0.75})], 2, 32.0)
    reporter.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 0, "epoch": 0, "loss": 2.5, "seconds": 0.5, "lr": 0.5},
        {"step": 1, "epoch": 0, "loss": None, "seconds": 0.25, "lr": 0.25, "skipped": True},
        {
            **{"step": 1, "gradient_norm": None, "stage_gradient_norms": [None, 1.0]},
            **{"weight_norm": 5.0, "stage_weight_norms": [3.0, 4.0]},
        },
        {
            "step": 0,
            "validation_loss": 0.625,
            "evaluation_seconds": 0.25,
            "drain_seconds": 0.125,
        },
        {
            "epoch": 0,
            "validation_loss": 0.5,
            "validation_accuracy": 0.875,
            "validation_top5_accuracy": None,
            "test_loss": None,
            "test_accuracy": 0.75,
            "evaluation_seconds": 0.0,
            "drain_seconds": 0.0,
        },
    ]
    assert stream.getvalue() == (
        "step 1/4 | validation loss 0.625 | evaluated in 0.25 s, drained in 0.12 s\n"
        "epoch 1/2 | validation accuracy 87.50 % | validation loss 0.5 | "
        "validation top5_accuracy has no finite value | "
        "test accuracy 75.00 % | test loss has no finite value | 32.0 samples/s\n"
    )


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(TrainingError, match=r"metrics.jsonl cannot be written \(File"):
            for step in range(9):
                log.write(step=step, seconds=1.0)
        with pytest.raises(OSError, match="File too large") as caught:
            write_text_atomically(tmp_path / "result.json", "x" * 99)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_resumed_log_keeps_the_lines_about_what_is_not_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in range(5):
        log.write(step=step, epoch=step // 2, seconds=1.0)
        log.write(step=step, test_loss=0.5, evaluation_seconds=1.0)
        if step % 2:
            log.write(step=step - 1, gradient_norm=1.0)
            log.write(epoch=step // 2, test_accuracy=0.5)
    log.close()
    path.write_text(path.read_text() + '{"step": 5, "ep', encoding="utf-8")
    resumed = MetricsLog(path, steps=4, epochs=1, evaluated=2)
    resumed.sync()
    resumed.write(epoch=1, test_accuracy=0.25)
    resumed.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["step"] for entry in found if "seconds" in entry] == [0, 1, 2, 3]
    assert [entry["step"] for entry in found if "gradient_norm" in entry] == [0, 2]
    assert [entry["step"] for entry in found if "test_loss" in entry] == [0, 1]
    assert [entry["test_accuracy"] for entry in found if "test_accuracy" in entry] == [0.5, 0.25]
    started_again = MetricsLog(path)
    started_again.close()
    assert path.read_text() == ""


def test_a_log_gets_plain_lines_and_a_terminal_gets_a_bar() -> None:
    log = io.StringIO()
    lines = PlainLines("run", 4, log)
    lines.message("an epoch")
    lines.close()
    assert log.getvalue() == "an epoch\n"
    terminal = io.StringIO()
    bar = TerminalBar("run", 4, Console(file=terminal, force_terminal=True, width=80))
    bar.step(2, "loss 1.0")
    bar.close()
    assert "2/4" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
