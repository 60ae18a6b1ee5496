"""Run under mpirun: trains every case of a JSON file and writes what came out of each.

    train_cases.py CASES OUT

Starting ranks takes longer than training a tiny model, so all cases of one rank count share them.
A case that is to be `refused` has no result but what each rank says of it.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from leave_no_trace import end_groups
from plans import placing, write_plan
from short_evaluation import evaluated_on_few

from hpc_lpm.engine.job import start_job
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import InputError


def sleep_at_random(seed: int) -> None:
    """Make every instruction of this rank start late by a random time."""
    generator = random.Random(seed)
    undisturbed = Recorder.start

    def start(recorder: Recorder) -> object:
        time.sleep(generator.choice([0.0, 0.0, 0.001, 0.004]))
        return undisturbed(recorder)

    Recorder.start = start  # type: ignore[method-assign]


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text())
    job = start_job(parallel=True)
    outcomes = []
    with tempfile.TemporaryDirectory() as own:
        folder = job.broadcast(own)
        plan = Path(own) / "plan.json"
        for case in cases:
            sleepless = Recorder.start
            if case.pop("sleep", False):
                sleep_at_random(job.rank)
            if (cuts := case.pop("cuts", None)) is not None:
                write_plan(cuts, case["model"], plan, **placing(case))
                case["plan"] = str(plan)
            refused = case.pop("refused", False)
            try:
                with evaluated_on_few(case):
                    result = Training(checked_settings(**case), job).run(Path(folder), None)
                if result is not None:
                    outcomes.append(result.model_dump(mode="json"))
            except InputError as error:
                if not refused:
                    raise
                outcomes.append({"refused": job.all_gather(str(error))})
            Recorder.start = sleepless  # type: ignore[method-assign]
            end_groups(job)
    if job.rank == 0:
        Path(sys.argv[2]).write_text(json.dumps(outcomes))


main()
