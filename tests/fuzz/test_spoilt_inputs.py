"""10,000 spoilt files and options in one process: each is accepted, or refused in a sentence.

None ends in a traceback, hangs, or takes a GiB of memory. hypothesis draws the same changes on
every run, and finds the smallest that shows a fault.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.cases import Case, cases
from tests.fuzz.command_lines import COMMAND_LINES, spoilt
from tests.fuzz.conftest import COUNTED
from tests.fuzz.judging import (
    MOST_BYTES,
    Outcome,
    Tally,
    bounded_memory,
    complaint,
    peak_bytes,
    run,
    run_reader,
)
from tests.fuzz.mutators import Mutation

READ, COMMANDED, TYPED = 6500, 1700, 1800
assert READ + COMMANDED + TYPED == 10_000

_NUMBER = st.integers(0, 9999)
MUTATIONS = st.lists(st.builds(Mutation, _NUMBER, _NUMBER, _NUMBER), min_size=1, max_size=3)

pytestmark = pytest.mark.timeout(900, method="thread")


def tried(number: int, take: Callable[[int, list[Mutation]], None], kinds: int) -> None:
    """Draw so many inputs, evenly of all kinds, the same on each run."""
    drawn = settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )(given(st.integers(0, kinds - 1), MUTATIONS)(take))
    with bounded_memory():
        drawn()


def check(what: str, outcome: Outcome, codes: frozenset[int], tally: Tally, before: int) -> None:
    problem = complaint(outcome, codes)
    assert problem is None, f"{what}: {problem}"
    grown = peak_bytes() - before
    assert grown < MOST_BYTES, f"{what} took {grown / 2**20:.0f} MiB"
    tally.count(what, outcome)


def tried_files(
    number: int, listed: list[Case], judged: Callable[[Case], Outcome], tally: Tally
) -> None:
    valid = {each.file: Path(each.file).read_bytes() for each in listed}
    for each in listed:
        assert judged(each).code in each.codes - {2}, f"{each.name}: {judged(each).said}"

    def take(kind: int, mutations: list[Mutation]) -> None:
        case = listed[kind]
        path = Path(case.file)
        path.write_bytes(case.spoil(valid[case.file], mutations))
        before = peak_bytes()
        outcome = judged(case)
        path.write_bytes(valid[case.file])
        check(case.name, outcome, case.codes, tally, before)

    tried(number, take, len(listed))


def test_spoilt_files_are_read_or_refused_in_a_sentence(
    files: Path, record_property: Callable[[str, object], None]
) -> None:
    tally = Tally()
    tried_files(READ, cases(), lambda case: run_reader(case.read), tally)
    record_property(COUNTED, tally.sentence())
    assert tally.tried >= READ


def test_commands_take_spoilt_files_or_refuse_them_in_a_sentence(
    files: Path, record_property: Callable[[str, object], None], stubbed: None
) -> None:
    tally = Tally()
    commanded = [case for case in cases() if case.command]
    tried_files(COMMANDED, commanded, lambda case: run(*case.command), tally)
    record_property(COUNTED, tally.sentence())
    assert tally.tried >= COMMANDED


def test_options_are_accepted_or_refused_in_a_sentence(
    files: Path, record_property: Callable[[str, object], None], stubbed: None
) -> None:
    tally = Tally()
    ended = frozenset({0, 1, 2})

    def take(kind: int, mutations: list[Mutation]) -> None:
        words = spoilt(COMMAND_LINES[kind], mutations)
        before = peak_bytes()
        check(" ".join(words)[:300], run(*words), ended, tally, before)
        shutil.rmtree("study", ignore_errors=True)

    tried(TYPED, take, len(COMMAND_LINES))
    record_property(COUNTED, tally.sentence())
    assert tally.tried >= TYPED


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """End commands that would start ranks or train where all that they were given is checked."""

    def accept(*_: object, **__: object) -> None:
        raise typer.Exit(0)

    for work in (
        "hpc_lpm.cli.train.start_job",
        "hpc_lpm.cli.train.play_ranks",
        "hpc_lpm.cli.profile.profile_in_job",
        "hpc_lpm.advice.asked_profiles.profile_in_job",
        "hpc_lpm.doctor.examination.examine_machine",
        "hpc_lpm.campaign.launching.launch_step",
        "hpc_lpm.campaign.launching.launch_trial",
        "hpc_lpm.campaign.tuning.tune.tune",
    ):
        monkeypatch.setattr(work, accept)
