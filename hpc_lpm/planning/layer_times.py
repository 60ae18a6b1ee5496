"""What the rivals `greedy` and `pipedream` know of a network: the time of every layer, alone.

Like their originals they take all devices for equally fast, and look at no transfer, no memory and
nothing that is replayed.
"""

from hpc_lpm.planning.cost import CostModel


def layer_time_sums(model: CostModel) -> list[int]:
    """Return L + 1 prefix sums of the layers' forward and backward times.

    Exact integers, in the unit that all times of the profile are multiples of.
    """
    return [
        forward + backward
        for forward, backward in zip(model.forward_sums, model.backward_sums, strict=True)
    ]
