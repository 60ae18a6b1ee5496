"""A mistake in a script ends in one sentence on every rank, within the limit that was given."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.mpi.ranks import PROGRAMS, mpirun
from tests.mpi.test_failures import left_behind

pytestmark = pytest.mark.mpi

LIMIT_SECONDS = 3.0
"""For which ranks wait for each other; see script_mistakes.py."""
SLACK_SECONDS = 57.0
"""To start an engine, on a busy machine, where others would wait for a minute."""

ALIKE = "accepted are the same on all ranks: make or read them alike on each"
SAME_CALLS = "every rank must call the same methods of the engine in the same order"

ON_ALL_RANKS = {
    "plan of another model": "was made for another model than Sequential: .*make it anew",
    "plan for other ranks": "the plan has 3 stages but 2 ranks were started: start one rank per",
    "other architecture": f"initialize was given .* on rank 1 than on rank 0, {ALIKE}",
    "other weights": f"given other initial weights on rank 1 than on rank 0, {ALIKE}",
    "other seed": f"initialize was given other options on rank 1 than on rank 0, {ALIKE}",
    "unknown option": "option 'micro_batch', .* did you mean 'micro_batches'.*accepted are seed,",
    "recipe by optimizer": "was given recipe 'auto', .* names of recipes, none, last-update",
    "optimizer of others": "has 6 of the . parameters that it was given: accepted is a function",
    "optimizer on one rank": "raises ValueError: Invalid learning rate: -1.0 .*accepted is a",
    "too many samples": "a batch of 9 samples, accepted are 8 .2 micro-batches of 4.*batch_size=9",
    "after close": "train_batch was called on an engine that has been closed: call it before",
    "evaluate nothing": "evaluate was given no batch, accepted is at least one",
}
"""What all ranks say alike, each by itself."""

ON_ONE_RANK = {
    "loss of each sample": r"float32\[4\], accepted is a tensor of one number: return the mean",
    "evaluate other numbers": f"evaluate.* after 1 batch: {SAME_CALLS}",
    "fewer batches, fbp, 0": f"rank 1 is .*batch 5, rank 0 in drain after 4 batches: {SAME_CALLS}",
    "fewer batches, fbp, 1": f"rank 0 is .*batch 5, rank 1 in drain after 4 batches: {SAME_CALLS}",
    "fewer batches, gpipe, 1": f"rank 0 is .*, rank 1 in drain after 4 batches: {SAME_CALLS}",
    "left out": f"rank 0 is .*batch 5, rank 1 in drain after 4 batches: {SAME_CALLS}",
    "fewer micro-batches, fbp, 0": "rank 0 in train_batch with 4 samples, for batch 3: every rank",
    "fewer micro-batches, gpipe, 1": "rank 1 in train_batch with 4 samples, for batch 3: every",
    "smaller micro-batches, fbp, 1": "rank 1 in train_batch with 6 samples, for batch 3: every",
    "other calls": f"rank . is in (save|evaluate) after 1 batch, rank . in .*: {SAME_CALLS}",
    "loss is nan": "stage 1 .rank 1., step 3, micro-batch 6, layer 2 2: the loss is nan",
}
"""What one rank says, whose error ends the script on all of them; the others wait in vain."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """How each mistake ended on each rank."""
    out = tmp_path_factory.mktemp("mistakes") / "out.json"
    program = str(PROGRAMS / "script_mistakes.py")
    done = mpirun(2, program, str(out), *ON_ALL_RANKS, *ON_ONE_RANK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not left_behind(str(out))
    return json.loads(out.read_text())


@pytest.mark.parametrize("mistake", [*ON_ALL_RANKS, *ON_ONE_RANK])
def test_a_mistake_ends_on_all_ranks_in_a_sentence(
    mistake: str, outcomes: dict[str, list[dict[str, Any]]]
) -> None:
    of_ranks = outcomes[mistake]
    for found in of_ranks:
        assert found["kind"] in {"InputError", "TrainingError"}, of_ranks
        assert "\n" not in found["said"], of_ranks
        assert found["said"].endswith("."), of_ranks
        assert "--" not in found["said"], of_ranks
        assert found["seconds"] < LIMIT_SECONDS + SLACK_SECONDS, of_ranks
    if mistake in ON_ALL_RANKS:
        assert {found["kind"] for found in of_ranks} == {"InputError"}, of_ranks
        for found in of_ranks:
            assert matches(ON_ALL_RANKS[mistake], found), of_ranks
    else:
        assert any(matches(ON_ONE_RANK[mistake], found) for found in of_ranks), of_ranks


def matches(pattern: str, found: dict[str, Any]) -> bool:
    return re.search(pattern, found["said"]) is not None


@pytest.mark.parametrize(
    ("how", "exit_code", "said"),
    [
        ("raise", 1, "rank 1 on {host} ends all ranks by KeyError:"),
        ("interrupt", 130, "rank 1 on {host} ends all ranks by KeyboardInterrupt:"),
        ("drain", 2, "rank 1 in drain after 4 batches"),
    ],
)
def test_what_one_rank_does_in_the_middle_of_its_loop_ends_the_script(
    how: str, exit_code: int, said: str, tmp_path: Path
) -> None:
    marker = str(tmp_path)
    done = mpirun(2, str(PROGRAMS / "script_mistakes.py"), "uncaught", how, marker)
    assert done.returncode == exit_code, done.stdout + done.stderr
    lines = (done.stdout + done.stderr).replace("\0", "").splitlines()
    ours = [line for line in lines if "hpc-lpm:" in line]
    assert len(ours) == 1, lines
    assert said.format(host=os.uname().nodename) in ours[0]
    assert not left_behind(marker)
