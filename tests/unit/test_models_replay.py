"""Emulated layers: true durations, true message sizes, real gradients."""

import time
from pathlib import Path

import pytest
import torch
from set_clock import OF_READINGS, SetClock
from torch import nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import create_model
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.split_backward.halves import SplitBackward

SHAPE = DataShape("image", (1, 1, 6), 5)
MICRO_BATCH = 4
OUTPUT_BYTES = (4000, 1608, 3, 999)


def write_profile(
    path: Path,
    *,
    forward_seconds: float = 0.0,
    backward_seconds: float = 0.0,
    weight_gradient_seconds: float | None = None,
    split_backward_seconds: float | None = None,
) -> Path:
    Profile(
        model="by hand",
        micro_batch=MICRO_BATCH,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"part{number}",
                forward_seconds=forward_seconds,
                backward_seconds=backward_seconds,
                weight_gradient_seconds=weight_gradient_seconds,
                split_backward_seconds=split_backward_seconds,
                output_bytes=output_bytes,
                parameter_bytes=4,
                activation_bytes=0,
            )
            for number, output_bytes in enumerate(OUTPUT_BYTES)
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    ).write(path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> LayeredModel:
    return create_model(f"replay:{write_profile(tmp_path / 'profile.json')}", SHAPE)


def built(model: LayeredModel, seed: int = 0) -> list[nn.Module]:
    return [model.build_layer(index, seed) for index in range(len(model.layers))]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    made = SetClock()
    monkeypatch.setattr("hpc_lpm.models.replay.time", made)
    return made


def test_there_is_a_layer_for_each_layer_of_the_profile(model: LayeredModel) -> None:
    assert [layer.name for layer in model.layers] == ["part0", "part1", "part2", "part3"]


def test_messages_have_the_profiled_size_in_whole_elements(model: LayeredModel) -> None:
    activation = torch.rand(MICRO_BATCH, *SHAPE.input_shape)
    sizes = []
    for layer in built(model):
        activation = layer(activation)
        assert activation.dtype == torch.float32
        sizes.append(activation.nbytes)
    # 1608 bytes are 100.5 elements a sample, 3 bytes less than one; the last layer gives logits.
    assert sizes[:3] == [4000, 1600, 4 * MICRO_BATCH]
    assert activation.shape == (MICRO_BATCH, SHAPE.classes)


def test_a_smaller_micro_batch_sends_less(model: LayeredModel) -> None:
    assert built(model)[0](torch.rand(1, *SHAPE.input_shape)).nbytes == 1000


def test_gradients_are_those_of_the_arithmetic(model: LayeredModel) -> None:
    for layer in built(model):
        inputs = torch.randn(3, 2, 7, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(layer.double(), (inputs,))
        weight = next(layer.parameters())
        assert torch.autograd.gradcheck(
            lambda w, layer=layer, x=inputs: torch.func.functional_call(layer, {"weight": w}, x),
            (weight,),
        )


def test_every_weight_gets_a_gradient_through_the_chain(model: LayeredModel) -> None:
    network = nn.Sequential(*built(model))
    inputs = torch.rand(MICRO_BATCH, *SHAPE.input_shape)
    model.loss(network(inputs), torch.tensor([0, 1, 2, 4])).backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert len(gradients) == 4
    assert all(gradient is not None and float(gradient.abs()) > 1e-6 for gradient in gradients)


def test_weights_depend_on_seed_and_index(model: LayeredModel) -> None:
    def weights() -> list[float]:
        return [layer.weight.item() for seed in (0, 1) for layer in built(model, seed)]

    assert len(set(weights())) == 8
    assert weights() == weights()


@pytest.mark.parametrize("samples", [MICRO_BATCH, MICRO_BATCH // 2])
def test_passes_last_as_long_as_profiled_in_proportion_to_the_samples(
    tmp_path: Path, clock: SetClock, samples: int
) -> None:
    path = write_profile(tmp_path / "p.json", forward_seconds=0.01, backward_seconds=0.02)
    layer = create_model(f"replay:{path}", SHAPE).build_layer(0, 0)
    inputs = torch.rand(samples, *SHAPE.input_shape)
    share = samples / MICRO_BATCH
    outputs = layer(inputs)
    gradient = torch.ones_like(outputs)
    forward = clock.seconds_of(lambda: layer(inputs))
    backward = clock.seconds_of(lambda: outputs.backward(gradient))
    assert share * 0.01 <= forward < share * 0.01 + OF_READINGS
    assert share * 0.02 <= backward < share * 0.02 + OF_READINGS


def test_passes_really_take_their_time(tmp_path: Path) -> None:
    path = write_profile(tmp_path / "p.json", forward_seconds=0.01, backward_seconds=0.02)
    layer = create_model(f"replay:{path}", SHAPE).build_layer(0, 0)
    inputs = torch.rand(MICRO_BATCH, *SHAPE.input_shape)
    marks = [time.perf_counter()]
    outputs = layer(inputs)
    marks.append(time.perf_counter())
    outputs.backward(torch.ones_like(outputs))
    marks.append(time.perf_counter())
    assert marks[1] - marks[0] >= 0.01
    assert marks[2] - marks[1] >= 0.02


@pytest.mark.parametrize(
    ("inputs_learn", "waiting", "both", "seconds"),
    [
        (True, 0.015, None, (0.005, 0.015)),
        (True, 0.015, 0.024, (0.006, 0.018)),
        (True, None, None, (0.02, 0)),
        (False, 0.015, 0.024, (0, 0.02)),
    ],
    ids=["inside", "parted at a cost", "not profiled", "first"],
)
def test_a_backward_pass_in_halves_lasts_as_long_as_profiled(
    tmp_path: Path,
    clock: SetClock,
    inputs_learn: bool,
    waiting: float | None,
    both: float | None,
    seconds: tuple[float, float],
) -> None:
    path = write_profile(
        tmp_path / "p.json",
        backward_seconds=0.02,
        weight_gradient_seconds=waiting,
        split_backward_seconds=both,
    )
    layer = create_model(f"replay:{path}", SHAPE).build_layer(0, 0)
    inputs = torch.rand(MICRO_BATCH, *SHAPE.input_shape, requires_grad=inputs_learn)
    gradient = torch.ones_like(layer(inputs))
    split = SplitBackward()
    outputs = layer(inputs)
    first = clock.seconds_of(lambda: split.input_half([outputs], [gradient], [inputs]))
    second = clock.seconds_of(split.weight_half)
    again = layer(inputs)
    whole = clock.seconds_of(lambda: again.backward(gradient))
    for half, expected in zip((first, second), seconds, strict=True):
        assert half == pytest.approx(expected, abs=OF_READINGS)
    assert 0.02 <= whole < 0.02 + OF_READINGS


def test_evaluation_takes_no_time_and_gives_the_same(tmp_path: Path, clock: SetClock) -> None:
    path = write_profile(tmp_path / "p.json", forward_seconds=0.05)
    layer = create_model(f"replay:{path}", SHAPE).build_layer(0, 0)
    inputs = torch.rand(MICRO_BATCH, *SHAPE.input_shape)
    trained = layer(inputs)
    layer.eval()
    assert torch.equal(layer(inputs), trained)
    assert clock.seconds_of(lambda: layer(inputs)) < OF_READINGS


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("replay:nowhere.json", "profile nowhere.json does not exist"),
        ("replay", "model 'replay' is not complete, accepted is replay:PATH"),
        ("replay:", "model 'replay:' is not complete"),
        ("replay:nowhere.json,speed=2", "unknown option 'speed' .none is accepted"),
    ],
)
def test_wrong_identifiers_are_explained(identifier: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model(identifier, SHAPE)


def test_a_profile_may_lie_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(tmp_path / "p.json")
    monkeypatch.setenv("HOME", str(tmp_path))
    model = create_model("replay:~/p.json", SHAPE)
    assert (model.name, len(model.layers)) == ("replay:~/p.json", len(OUTPUT_BYTES))


def test_text_is_refused(tmp_path: Path) -> None:
    path = write_profile(tmp_path / "p.json")
    with pytest.raises(InputError, match=r"replay takes images .* holds text"):
        create_model(f"replay:{path}", DataShape("text", (16,), 256))
