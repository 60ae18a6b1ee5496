"""Nothing that cannot be printed ends a training."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_lpm.cli.forgiving_display import ForgivingDisplay
from hpc_lpm.cli.lossy_output import LossyStream
from hpc_lpm.errors import InputError

TRAIN = [sys.executable, "-m", "hpc_lpm", "train", "--model", "mlp", "--dataset", "digits"]


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_training_whose_output_nobody_reads_succeeds(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*TRAIN, "--steps", "2", "--out", str(tmp_path / "a run"), *options]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert (tmp_path / "a run" / "result.json").exists()


def test_a_result_that_cannot_be_shown_is_said_to_be_there(tmp_path: Path) -> None:
    broken = (
        "import sys\nimport hpc_lpm.cli.train as train\nfrom hpc_lpm.cli.main import main\n"
        "def fail(*_): raise ValueError('a name [/with] brackets')\n"
        "train.print_table = fail\nmain()\n"
    )
    command = [sys.executable, "-c", broken, *TRAIN[3:], "--steps", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"the result is in {tmp_path / 'result.json'}, but cannot be shown" in done.stderr
    assert done.stderr.count("\n") == 1


def test_only_a_reader_that_is_gone_is_no_fault_of_other_commands() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a device that is always full")
    for any_fault in (True, False):
        with Path("/dev/full").open("w") as full:
            stream = LossyStream(full, any_fault=any_fault)
            stream.write("lost")
            if any_fault:
                stream.flush()
            else:
                with pytest.raises(InputError, match="cannot be written"):
                    stream.flush()
            stream.write("lost too")
            stream.flush()


class Failing:
    def step(self, done: int, text: str) -> None:
        raise ValueError(text)

    def message(self, text: str) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


def test_a_display_that_fails_is_given_up() -> None:
    said: list[str] = []
    display = ForgivingDisplay(Failing, said.append)
    display.step(1, "a [/tag]")
    display.message("again")
    display.close()
    assert said == ["progress is no longer shown (ValueError: a [/tag])"]


def test_a_stream_has_all_that_streams_have() -> None:
    text = io.StringIO()
    stream = LossyStream(text, any_fault=False)
    print("a", "b", file=stream, flush=True)
    stream.writelines(["c", "d"])
    assert text.getvalue() == "a b\ncd"
    assert stream.isatty() is False
