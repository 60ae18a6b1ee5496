import pytest
from test_statistics import summary

from hpc_lpm.campaign.compare import Change, compare_summaries

SLOW = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
FAST = [1.2 * value for value in SLOW]


def speed_change(first: list[float], second: list[float]) -> Change:
    a, b = (summary({("fbp", "lpm"): speeds}) for speeds in (first, second))
    changes = compare_summaries(a, b).changes
    return next(change for change in changes if change.metric == "samples_per_second")


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (SLOW, FAST, "better"),
        (FAST, SLOW, "worse"),
        (SLOW, SLOW, "inconclusive"),
        (SLOW, [value + 0.5 for value in SLOW], "inconclusive"),
    ],
)
def test_a_change_is_called_so_only_if_the_interval_leaves_one_out(
    first: list[float], second: list[float], verdict: str
) -> None:
    change = speed_change(first, second)
    assert change.verdict == verdict
    assert change.low is not None
    assert change.high is not None
    assert change.low <= change.ratio <= change.high


def test_few_runs_are_inconclusive_however_far_apart() -> None:
    change = speed_change(SLOW[:5], [10 * value for value in SLOW])
    assert (change.verdict, change.low, change.runs_a, change.runs_b) == (
        "inconclusive",
        None,
        5,
        6,
    )


def test_less_memory_is_better() -> None:
    a = summary({("fbp", "lpm"): SLOW})
    b = a.assign(peak_memory_bytes=5)
    changes = {change.metric: change for change in compare_summaries(a, b).changes}
    assert changes["peak_memory_bytes"].verdict == "better"
    assert changes["peak_memory_bytes"].ratio == 0.5


def test_trials_are_matched_by_name_and_by_their_weights() -> None:
    a = summary({("fbp", "lpm"): SLOW[:3]})
    b = summary({("fbp", "lpm"): SLOW[:2], ("horovod", ""): SLOW[:1]})
    b.loc[1, "weights_sha256"] = "other"
    compared = compare_summaries(a, b)
    assert compared.same_weights == {"fbplpm0": True, "fbplpm1": False}
    assert compared.only_in_a == ["fbplpm2"]
    assert compared.only_in_b == ["horovod0"]
