"""The comparison of a module with its chain: both train the same, and take turns."""

from collections.abc import Callable

import torch

from benchmarks.captured import ResidualNetwork, measured, times_in_turns


def test_steps_take_turns_and_the_first_changes_from_pair_to_pair() -> None:
    taken: list[str] = []

    def step(name: str) -> Callable[[], None]:
        return lambda: taken.append(name)

    seconds = times_in_turns([step("module"), step("chain")], pairs=3)
    first, second = ["module", "chain"], ["chain", "module"]
    assert taken[6:] == [*first, *second, *first]
    assert [len(values) for values in seconds] == [3, 3]


def test_a_row_tells_the_layers_and_a_ratio_within_its_interval_after_training() -> None:
    module = ResidualNetwork(1, 4)
    before = [parameter.clone() for parameter in module.parameters()]
    row = measured("small", module, torch.randn(4, 3, 8, 8), pairs=6)
    assert row.layers == 6
    assert row.ratio_low <= row.ratio <= row.ratio_high
    assert any(
        not torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True)
    )
