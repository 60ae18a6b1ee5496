"""Run under mpirun -n 2: trains every case of a JSON file and writes each rank's TrainingError.

    fault_cases.py CASES OUT

The rank without the fault ends by its receive timeout, so that one start serves all cases.
"""

import json
import sys
import tempfile
from pathlib import Path

from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training
from hpc_lpm.errors import TrainingError


def main() -> None:
    world = MpiJob().communicator
    outcomes = []
    for case in json.loads(Path(sys.argv[1]).read_text()):
        job = MpiJob()
        # Messages of a case that failed must not reach the next one.
        job.communicator = world.Dup()
        message = ""
        with tempfile.TemporaryDirectory() as own:
            folder = Path(world.bcast(own))  # all ranks have one run's folder
            try:
                Training(checked_settings(**case), job).run(folder, None)
            except TrainingError as error:
                message = str(error)
            outcomes.append(world.allgather(message))
    if world.Get_rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps(outcomes))


main()
