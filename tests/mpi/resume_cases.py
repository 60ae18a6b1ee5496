"""Run under mpirun: trains, is interrupted and resumes, case after case of a JSON file.

    resume_cases.py CASES OUT

Each case is one training: its settings, `cuts` where it has a plan, its `folder`, and
* `resume`: go on from what is in the folder
* `interrupt`: {signal, ranks, instruction or step}: each of these ranks sends itself the signal at
  its so-manieth instruction, or after its so-manieth update, of this training
* `sleep`: ranks start instructions late by random times
* `evaluate_all`: on the whole test part
* `drain_like`: drain where the case of this number has drained
What came of it is a result, or {"stopped": sentence}, or {"refused": sentence}.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from leave_no_trace import end_groups
from plans import write_plan
from short_evaluation import evaluated_on_few

from hpc_lpm.engine.job import start_job
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError, InterruptedTrainingError
from hpc_lpm.stop_signals import StopSignals

START, END_STEP = Recorder.start, Recorder.end_step


def disturb(rank: int, interrupt: dict | None, sleep: bool) -> None:
    generator = random.Random(rank)
    counts = {"instruction": 0, "step": 0}

    def count(what: str) -> None:
        counts[what] += 1
        if interrupt and rank in interrupt["ranks"] and counts[what] == interrupt.get(what):
            os.kill(os.getpid(), getattr(signal, interrupt["signal"]))

    def start(recorder: Recorder) -> object:
        count("instruction")
        if sleep:
            time.sleep(generator.choice([0.0, 0.0, 0.001, 0.004]))
        return START(recorder)

    def end_step(recorder: Recorder) -> None:
        END_STEP(recorder)
        count("step")

    Recorder.start = start  # type: ignore[method-assign]
    Recorder.end_step = end_step  # type: ignore[method-assign]


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text())
    job = start_job(parallel=True)
    outcomes: list[dict] = []
    for case in cases:
        folder = Path(case.pop("folder"))
        resume = case.pop("resume", False)
        disturb(job.rank, case.pop("interrupt", None), case.pop("sleep", False))
        if (like := case.pop("drain_like", None)) is not None:
            case["drain_at"] = outcomes[like]["drains"]
        if (cuts := case.pop("cuts", None)) is not None:
            case["plan"] = str(folder.with_name(f"{folder.name}-{job.rank}.json"))
            write_plan(cuts, case["model"], Path(case["plan"]))
        signals = StopSignals()
        signals.install()
        try:
            with evaluated_on_few(case):
                settings = checked_settings(**case)
                training = Training(settings, job, resume_from=folder if resume else None)
                result = training.run(folder, None, signals)
            outcome = result.model_dump(mode="json") if result else {}
        except InterruptedTrainingError as error:
            outcome = {"stopped": str(error)}
        except InputError as error:
            outcome = {"refused": str(error)}
        outcomes.append(job.broadcast(outcome))
        end_groups(job)
    Recorder.start, Recorder.end_step = START, END_STEP  # type: ignore[method-assign]
    if job.rank == 0:
        Path(sys.argv[2]).write_text(json.dumps(outcomes))


main()
