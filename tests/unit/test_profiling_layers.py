"""The layer profile: right times, right bytes, and nothing outside it is changed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from set_clock import OF_READINGS, SetClock
from torch import Tensor, nn

from hpc_lpm.data.dataset import Dataset, DataShape, Split
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy
from hpc_lpm.models.registry import create_model
from hpc_lpm.models.sharing import with_shared_parts_known
from hpc_lpm.profile_file import LayerProfile
from hpc_lpm.profiling import job
from hpc_lpm.profiling.chain import DetachedChain
from hpc_lpm.profiling.job import compute_threads, median_over_ranks, profile_in_job
from hpc_lpm.profiling.layers import profile_model
from hpc_lpm.split_backward.deferred_work import defer, is_put_off

INPUTS = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(6)
CLOCK = SetClock()


@pytest.fixture(autouse=True)
def set_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time what is computed here by a clock that the machine's load cannot change."""
    monkeypatch.setattr("hpc_lpm.profiling.timer.time", CLOCK)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for one another would take long."""
    with compute_threads(1):
        yield


class Sleeping(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor, forward: float, backward: float) -> Tensor:
        context.seconds = backward
        CLOCK.sleep(forward)
        return inputs.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        CLOCK.sleep(context.seconds)
        return gradients[0], None, None


class Delay(nn.Module):
    """Takes known times; its parameter makes even the first one differentiable."""

    def __init__(self, forward_seconds: float, backward_seconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))
        self.seconds = forward_seconds, backward_seconds

    def forward(self, inputs: Tensor) -> Tensor:
        return Sleeping.apply(inputs * self.weight, *self.seconds)  # type: ignore[no-any-return]


def model_of(*builders: Callable[[], nn.Module]) -> LayeredModel:
    layers = tuple(Layer(f"layer{number}", build) for number, build in enumerate(builders))
    return LayeredModel("test", layers, cross_entropy, count_correct)


def test_sleeping_layers_are_measured_to_their_times() -> None:
    seconds = [(0.01, 0.04), (0.03, 0.02), (0.02, 0.05)]
    model = model_of(*(lambda pair=pair: Delay(*pair) for pair in seconds))
    profile = profile_model(model, INPUTS, TARGETS, repeats=5)
    for layer, (forward, backward) in zip(profile, seconds, strict=True):
        assert layer.forward_seconds == pytest.approx(forward, abs=OF_READINGS)
        assert layer.backward_seconds == pytest.approx(backward, abs=OF_READINGS)


def test_passes_are_timed_by_the_clock_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_lpm.profiling.timer.time", time)
    monkeypatch.setattr(CLOCK, "sleep", time.sleep)
    (layer,) = profile_model(model_of(lambda: Delay(0.01, 0.02)), INPUTS, TARGETS, repeats=1)
    assert layer.forward_seconds >= 0.01
    assert layer.backward_seconds >= 0.02


def test_one_disturbed_sweep_does_not_show() -> None:
    class Hiccup(nn.Linear):
        passes = 0

        def forward(self, inputs: Tensor) -> Tensor:
            Hiccup.passes += 1
            if Hiccup.passes == 5:
                CLOCK.sleep(0.4)
            return super().forward(inputs)

    (layer,) = profile_model(model_of(lambda: Hiccup(10, 10)), INPUTS, TARGETS, repeats=7)
    # The passes of nine sweeps and five in halves, and one that shows whether the layer changes
    # its input.
    assert Hiccup.passes == 15
    assert layer.forward_seconds < OF_READINGS


def test_the_loss_is_part_of_the_last_layer() -> None:
    def slow_loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(Sleeping.apply(outputs, 0.04, 0.03), targets)

    layers = model_of(lambda: nn.Linear(10, 10), lambda: nn.Linear(10, 10)).layers
    model = LayeredModel("test", layers, slow_loss, count_correct)
    first, last = profile_model(model, INPUTS, TARGETS, repeats=3)
    assert first.forward_seconds < OF_READINGS
    assert first.backward_seconds < OF_READINGS
    assert last.forward_seconds == pytest.approx(0.04, abs=OF_READINGS)
    assert last.backward_seconds == pytest.approx(0.03, abs=OF_READINGS)


PARTED = 1.25
"""How many times as long halves take that run apart."""


class SleepingInHalves(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, first: float, later: float) -> Tensor:
        context.seconds = first, later
        return inputs * weight

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        first, later = context.seconds
        factor = PARTED if is_put_off() else 1.0
        CLOCK.sleep(factor * first)
        defer(lambda: CLOCK.sleep(factor * later))
        return gradients[0], gradients[0].sum(0), None, None


class DelayInHalves(nn.Module):
    def __init__(self, first: float, later: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))
        self.seconds = first, later

    def forward(self, inputs: Tensor) -> Tensor:
        return SleepingInHalves.apply(inputs, self.weight, *self.seconds)  # type: ignore[no-any-return]


def test_what_can_wait_of_a_backward_pass_is_measured() -> None:
    halves = [(0.01, 0.01), (0.01, 0.03), (0.03, 0.01), (0.02, 0.0)]
    model = model_of(*(lambda pair=pair: DelayInHalves(*pair) for pair in halves), nn.Tanh)
    first, second, third, _, last = profile_model(model, INPUTS, TARGETS, repeats=5)
    # Nothing waits for the gradient of the data.
    assert first.weight_gradient_seconds == first.backward_seconds
    assert second.weight_gradient_seconds == pytest.approx(0.03, abs=OF_READINGS)
    assert third.weight_gradient_seconds == pytest.approx(0.01, abs=OF_READINGS)
    assert last.weight_gradient_seconds == 0.0
    assert first.split_backward_seconds == first.backward_seconds
    assert last.split_backward_seconds == last.backward_seconds
    for layer in (second, third):
        assert layer.backward_seconds == pytest.approx(0.04, abs=OF_READINGS)
        assert layer.split_backward_seconds == pytest.approx(0.05, abs=OF_READINGS)


def test_bytes_equal_the_hand_count() -> None:
    class Split2(nn.Module):
        """Two tensors cross after it; keeps nothing: a sum with a constant needs no tensor."""

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return inputs + 1, torch.zeros(5, dtype=torch.int64)

    class Exp(nn.Module):
        """Keeps its output."""

        def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
            return inputs[0].exp()

    model = model_of(lambda: nn.Linear(10, 7), Split2, Exp, lambda: nn.Linear(7, 7, bias=False))
    profile = profile_model(model, INPUTS, TARGETS, repeats=1)
    outputs = 6 * 7 * 4
    assert [layer.output_bytes for layer in profile] == [outputs, outputs + 5 * 8, outputs, outputs]
    assert [layer.parameter_bytes for layer in profile] == [(10 * 7 + 7) * 4, 0, 0, 7 * 7 * 4]
    # Linear keeps its input: the first the data; the last what Exp keeps already, so that it adds
    # the log-probabilities, the targets and the total weight (a scalar) of the loss.
    assert [layer.activation_bytes for layer in profile] == [
        6 * 10 * 4,
        0,
        outputs,
        outputs + 6 * 8 + 4,
    ]


def test_activations_of_a_convolution_and_a_normalisation_equal_the_hand_count() -> None:
    shape = DataShape("image", (3, 8, 8), 10)
    model = create_model("resnet20,width=4", shape)
    inputs = torch.randn(2, 3, 8, 8)
    profile = profile_model(model, inputs, torch.tensor([0, 1]), repeats=1)
    by_name = {layer.name: layer.activation_bytes for layer in profile}
    image = 2 * 4 * 8 * 8 * 4
    assert by_name["stem.conv"] == inputs.nbytes
    # Input, rectified output, and mean and inverse deviation of 4 channels.
    assert by_name["stem.norm"] == 2 * image + 2 * 4 * 4
    # Its input is the output that stem.norm keeps already.
    assert by_name["group1.block0.conv1"] == 0


def test_passes_give_the_gradients_of_the_whole_chain_so_that_none_was_skipped() -> None:
    model = create_model("resnet20,width=2", DataShape("image", (3, 8, 8), 10))
    inputs, targets = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    chain = DetachedChain(model, inputs, targets, torch.device("cpu"), seed=3)
    sweeps = 2
    for _ in range(sweeps):
        for index in range(len(chain)):
            chain.forward(index)
        for index in reversed(range(len(chain))):
            chain.backward(index)

    whole = nn.Sequential(*(model.build_layer(index, 3) for index in range(len(chain))))
    cross_entropy(whole(inputs), targets).backward()
    for layer, expected in zip(chain.layers, whole, strict=True):
        for weight, same in zip(layer.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, sweeps * same.grad, rtol=1e-4, atol=1e-5)


def test_nothing_outside_is_changed() -> None:
    shared = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10), nn.Dropout(0.5)).eval()
    state = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    inputs, random_state = INPUTS.clone(), torch.random.get_rng_state()
    with torch.no_grad():
        model = with_shared_parts_known(model_of(lambda: shared))
        profile_model(model, inputs, TARGETS, repeats=2)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert torch.equal(inputs, INPUTS)
    assert not inputs.requires_grad
    assert not shared.training
    assert all(parameter.grad is None for parameter in shared.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in shared.state_dict().items())


def test_a_layer_that_cannot_run_is_named() -> None:
    model = model_of(lambda: nn.Linear(10, 7), lambda: nn.Linear(8, 10))
    with pytest.raises(InputError, match=r"layer 1 \(layer1\) of model 'test' fails.*shapes"):
        profile_model(model, INPUTS, TARGETS, repeats=1)


def test_threads_are_set_inside_alone() -> None:
    before = torch.get_num_threads()
    with compute_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_ranks_that_tell_each_other_of_errors_wait_no_longer_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounded: list[float] = []

    @contextmanager
    def noted(limit_seconds: float, _rank: int, _what: str) -> Iterator[None]:
        bounded.append(limit_seconds)
        yield
        bounded.pop()

    class Met:
        def Test(self) -> bool:
            return True

    class TwoRanks:
        rank, size = 0, 2

        def Ibarrier(self) -> Met:
            return Met()

        def allgather(self, told: object) -> list[object]:
            assert bounded == [5.0]
            return [told, told]

    monkeypatch.setattr(job, "bounded_by_thread", noted)
    with job._all_or_none(TwoRanks(), 5.0):
        pass
    with (
        pytest.raises(InputError, match="layer 3 fails"),
        job._all_or_none(TwoRanks(), 5.0),
    ):
        raise InputError("layer 3 fails")


def test_a_rank_tells_its_own_error_although_the_others_do_not_come() -> None:
    class Unmet:
        def Test(self) -> bool:
            return False

    class Alone:
        rank, size = 0, 2

        def Ibarrier(self) -> Unmet:
            return Unmet()

    with pytest.raises(InputError, match="layer 3 fails"), job._all_or_none(Alone(), -1.0):
        raise InputError("layer 3 fails")
    with (
        pytest.raises(InputError, match="the other ranks have not profiled"),
        job._all_or_none(Alone(), -1.0),
    ):
        pass


def test_ranks_are_joined_by_their_median_layer_by_layer() -> None:
    def rank(*seconds: float) -> tuple[LayerProfile, ...]:
        return tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=value,
                backward_seconds=10 * value,
                output_bytes=1,
                parameter_bytes=2,
                activation_bytes=3,
            )
            for number, value in enumerate(seconds)
        )

    ranks = [rank(1, 9), rank(3, 7), rank(2, 8)]
    joined = median_over_ranks(ranks)
    assert [layer.forward_seconds for layer in joined] == [2, 8]
    assert [layer.backward_seconds for layer in joined] == [20, 80]
    assert [layer.name for layer in joined] == ["layer0", "layer1"]
    assert [layer.weight_gradient_seconds for layer in joined] == [None, None]
    assert [layer.split_backward_seconds for layer in joined] == [None, None]


def test_ranks_are_joined_to_a_part_of_the_backward_pass_that_can_wait() -> None:
    def rank(backward: float, waiting: float, both: float = 6.0) -> tuple[LayerProfile, ...]:
        layer = LayerProfile(
            name="layer",
            forward_seconds=1,
            backward_seconds=backward,
            weight_gradient_seconds=waiting,
            split_backward_seconds=both,
            output_bytes=1,
            parameter_bytes=2,
            activation_bytes=3,
        )
        return (layer,)

    (joined,) = median_over_ranks([rank(4, 1), rank(6, 3, 7), rank(8, 2, 9)])
    assert (joined.backward_seconds, joined.weight_gradient_seconds) == (6, 2)
    assert joined.split_backward_seconds == 7
    (joined,) = median_over_ranks([rank(4, 1, 4), rank(6, 1, 6), rank(7, 1, 7), rank(8, 1, 8)])
    assert joined.split_backward_seconds == joined.backward_seconds == 6.5
    (joined,) = median_over_ranks([rank(4, 1), rank(5, 5), rank(6, 6), rank(4, 4)])
    assert (joined.backward_seconds, joined.weight_gradient_seconds) == (4.5, 4.5)


def test_more_than_the_backward_pass_cannot_wait() -> None:
    with pytest.raises(ValueError, match=r"weight_gradient_seconds is 3, accepted is a part of"):
        LayerProfile(
            name="layer",
            forward_seconds=1,
            backward_seconds=2,
            weight_gradient_seconds=3,
            output_bytes=1,
            parameter_bytes=1,
            activation_bytes=1,
        )


def test_halves_cannot_take_less_than_the_backward_pass() -> None:
    with pytest.raises(ValueError, match=r"split_backward_seconds is 1, accepted is at least"):
        LayerProfile(
            name="layer",
            forward_seconds=1,
            backward_seconds=2,
            split_backward_seconds=1,
            output_bytes=1,
            parameter_bytes=1,
            activation_bytes=1,
        )


def small_data() -> Dataset:
    split = Split(INPUTS, TARGETS)
    return Dataset("small", DataShape("image", (10,), 10), split, split)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batch": 0}, "micro-batch is 0, accepted are 1 to 6"),
        ({"micro_batch": 7}, "micro-batch is 7, accepted are 1 to 6"),
        ({"micro_batch": 1, "repeats": 0}, "repeats is 0"),
        ({"micro_batch": 1, "threads": 0}, "threads is 0"),
        ({"micro_batch": 1, "device": "tpu"}, "device is 'tpu', accepted are cpu and cuda"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        profile_in_job(model_of(lambda: nn.Linear(10, 10)), small_data(), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(InputError, match="torch finds no GPU"):
        profile_in_job(
            model_of(lambda: nn.Linear(10, 10)), small_data(), micro_batch=2, device="cuda"
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_gpu_work_is_timed_although_python_runs_ahead() -> None:
    model = model_of(lambda: nn.Linear(8192, 8192), lambda: nn.Linear(8192, 8))
    inputs, targets = torch.randn(8192, 8192), torch.zeros(8192, dtype=torch.int64)
    large, small = profile_model(model, inputs, targets, repeats=3, device="cuda")
    assert large.forward_seconds > 5 * small.forward_seconds
