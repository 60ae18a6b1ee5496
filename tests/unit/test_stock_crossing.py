"""What stock DeepSpeed is given to send is one tensor, and everything comes out as it went in."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation, taken_apart, tensors_of
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.boundary import Boundary, BoundarySpec, StageBoundaries, TensorSpec
from hpc_lpm.engine.runners.carrier import fill_missing_gradient
from hpc_lpm.engine.runners.crossing import Crossing

HOST = torch.device("cpu")
IMAGES = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
LARGE = torch.tensor([2**24 + 1, -(2**62) - 1, 7])
ODD_NANS = torch.tensor([0x7FC0_1234, -0x3FFF_FF, 0x7F80_0001, 0], dtype=torch.int32)


@dataclass
class Pair:
    hidden: Tensor
    mask: Tensor | None


ALONE: dict[str, Tensor] = {
    "plain": torch.randn(2, 3, 4, 5),
    "channels last": IMAGES,
    "transposed samples": torch.randn(4, 2).t(),
    "half": torch.randn(2, 7).half(),
    "double": torch.randn(3, dtype=torch.float64),
}
PACKED: dict[str, Activation] = {
    "one pixel": torch.randn(2, 3, 1, 1).to(memory_format=torch.channels_last),
    "without dimensions": torch.tensor(0.1),
    "without elements": torch.zeros(3, 0),
    "numbers alone": LARGE,
    "complex": torch.randn(2, 3, dtype=torch.complex64),
    "conjugated": torch.randn(2, 3, dtype=torch.complex128).conj(),
    "tuple of one": (torch.randn(2, 3),),
    "mixed types": (IMAGES.bfloat16(), torch.rand(2, 7) > 0.5, LARGE, torch.randn(1).double()),
    "mask of positions": [torch.randn(2, 4, 3), torch.ones(4, 4).tril().bool(), torch.arange(4)],
    "nested": {"a": (torch.randn(2), None), "b": [1.5, "x", {"c": torch.tensor(3)}], "d": True},
    "dataclass": Pair(torch.randn(2, 3), None),
    "bits that are no numbers": (ODD_NANS.view(torch.float32), torch.randn(2).half()),
    "no tensors": (None, 3),
}
GAPPED = torch.randn(4, 6)[:, ::2]


def crossing(before: Activation, spec: BoundarySpec | None = None) -> tuple[Callable, Callable]:
    """What the sender and the receiver of this activation do, agreed by its description alone."""
    boundary = Boundary({(True, 2): spec or BoundarySpec.of(before)})
    sender = Crossing(StageBoundaries(Boundary(), boundary), HOST, 1, "DeepSpeed")
    receiver = Crossing(StageBoundaries(boundary, Boundary()), HOST, 2, "DeepSpeed")
    leave = sender.leave(training=True, samples=2)
    enter = receiver.enter(training=True, samples=2)
    assert leave is not None
    assert enter is not None
    return leave, enter


def arrive(carrier: Tensor, enter: Callable) -> tuple[Tensor, Activation]:
    """What DeepSpeed does with what has arrived: a leaf, and what the stage makes of its clone."""
    assert carrier.is_contiguous()
    assert carrier.is_floating_point()
    assert carrier.dim() > 0
    leaf = carrier.clone().detach().requires_grad_()
    return leaf, enter(leaf.clone())


def same_bits(one: Tensor, other: Tensor) -> bool:
    flat = [t.resolve_conj().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*flat)


def learning(activation: Activation) -> Activation:
    """The same activation, every tensor that can have a gradient a result of one that learns."""
    tensors, structure = taken_apart(activation)
    grown = [
        t.detach().clone().requires_grad_().view_as(t)
        if t.is_floating_point() or t.is_complex()
        else t
        for t in tensors
    ]
    return structure.fill(grown)


@pytest.mark.parametrize("activation", [*ALONE.values(), *PACKED.values(), GAPPED])
def test_any_activation_arrives_with_its_bits_types_and_layout(activation: Activation) -> None:
    leave, enter = crossing(activation)
    _, arrived = arrive(leave(activation), enter)
    tensors, structure = taken_apart(arrived)
    given, given_structure = taken_apart(activation)
    assert structure == given_structure
    assert type(arrived) is type(activation)
    for got, sent in zip(tensors, given, strict=True):
        assert same_bits(got, sent)
        assert not got.requires_grad
        if sent is not GAPPED:
            assert got.stride() == sent.stride()


@pytest.mark.parametrize("activation", [*ALONE.values(), *PACKED.values(), GAPPED])
def test_gradients_return_with_their_bits_to_what_requires_one(activation: Activation) -> None:
    outputs = learning(activation)
    leave, enter = crossing(outputs)
    carrier = leave(outputs)
    leaf, arrived = arrive(carrier, enter)
    learns = [t for t in tensors_of(arrived) if t.requires_grad]
    sources = [t for t in tensors_of(outputs) if t.requires_grad]
    gradients = [torch.randn_like(t) for t in learns]
    assert len(learns) == len(sources)
    if learns:
        torch.autograd.backward(learns, gradients)
    fill_missing_gradient(leaf)
    for source in sources:
        source.retain_grad()
    carrier.backward(gradient=leaf.grad)
    for source, gradient in zip(sources, gradients, strict=True):
        assert source.grad is not None
        assert same_bits(source.grad, gradient)


@pytest.mark.parametrize("packed", [False, True])
def test_gradients_return_in_the_layout_that_was_agreed_for_them(packed: bool) -> None:
    source = torch.randn(2, 3, 4, 5, requires_grad=True)
    alone = source * 1
    outputs = (alone, LARGE) if packed else alone
    gradient = torch.randn_like(IMAGES)
    assert gradient.stride() != alone.stride()
    spec = BoundarySpec.of(outputs).with_gradients([TensorSpec.of(gradient)])
    leave, enter = crossing(outputs, spec)
    carrier = leave(outputs)
    leaf, arrived = arrive(carrier, enter)
    tensors_of(arrived)[0].backward(gradient)
    returned: list[Tensor] = []
    alone.register_hook(returned.append)
    carrier.backward(gradient=leaf.grad)
    assert torch.equal(returned[0], gradient)
    assert returned[0].stride() == gradient.stride()


def test_a_lone_tensor_is_sent_without_a_copy_and_gives_no_copy() -> None:
    for lone in ALONE.values():
        leave, enter = crossing(lone)
        carrier = leave(lone)
        assert carrier.data_ptr() == lone.data_ptr()
        leaf = carrier.clone().detach().requires_grad_()
        assert enter(leaf).data_ptr() == leaf.data_ptr()


def test_the_gradient_that_deepspeed_will_overwrite_is_not_kept() -> None:
    table = nn.Parameter(torch.randn(1, 2, 3))
    for shape in ((1, 6), (1, 6, 1)):
        outputs = (table + 1).view(shape)
        leave, _ = crossing(outputs)
        buffer = torch.ones(shape)
        leave(outputs).backward(gradient=buffer)
        buffer.fill_(9)
        assert torch.equal(table.grad, torch.ones(1, 2, 3))
        table.grad = None


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("used", [(), (0,), (1,)])
def test_what_is_not_used_downstream_has_no_gradient_upstream(
    packed: bool, used: tuple[int, ...]
) -> None:
    weights = [nn.Parameter(torch.randn(3)) for _ in range(2 if packed else 1)]
    sources = [weight * 2 for weight in weights]
    outputs = tuple(sources) if packed else sources[0]
    leave, enter = crossing(outputs)
    carrier = leave(outputs)
    leaf, arrived = arrive(carrier, enter)
    for index in used:
        if index < len(weights):
            tensors_of(arrived)[index].sum().backward()
    fill_missing_gradient(leaf)
    carrier.backward(gradient=leaf.grad)
    for index, weight in enumerate(weights):
        assert (weight.grad is not None) == (index in used)


def test_a_function_of_the_users_is_not_run_backward_for_a_gradient_that_is_none() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, values: Tensor) -> Tensor:
            return values * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * 2

    weights = [nn.Parameter(torch.randn(3)) for _ in range(2)]
    outputs = tuple(Doubled.apply(weight) for weight in weights)
    leave, enter = crossing(outputs)
    carrier = leave(outputs)
    leaf, (first, _) = arrive(carrier, enter)
    first.sum().backward()
    carrier.backward(gradient=leaf.grad)
    assert torch.equal(weights[0].grad, torch.full((3,), 2.0))
    assert weights[1].grad is None


def test_a_tensor_that_is_handed_on_twice_arrives_as_one() -> None:
    source = torch.randn(2, 3, requires_grad=True)
    once = source * 1
    outputs = {"hidden": once, "others": (LARGE, once)}
    leave, enter = crossing(outputs)
    carrier = leave(outputs)
    leaf, arrived = arrive(carrier, enter)
    assert arrived["hidden"] is arrived["others"][1]
    (arrived["hidden"] + 2 * arrived["others"][1]).sum().backward()
    carrier.backward(gradient=leaf.grad)
    assert torch.equal(source.grad, torch.full((2, 3), 3.0))


@pytest.mark.parametrize("frozen", [torch.randn(2, 3), (torch.randn(2, 3), torch.arange(2))])
def test_a_stage_that_learns_nothing_can_be_run_backward(frozen: Activation) -> None:
    leave, enter = crossing(frozen)
    carrier = leave(frozen)
    leaf, arrived = arrive(carrier, enter)
    assert not any(tensor.requires_grad for tensor in tensors_of(arrived))
    fill_missing_gradient(leaf)
    carrier.backward(gradient=leaf.grad)


def test_a_gradient_of_nans_is_not_taken_for_none() -> None:
    weight = nn.Parameter(torch.randn(3))
    leave, enter = crossing(weight * 1)
    carrier = leave(weight * 1)
    leaf, arrived = arrive(carrier, enter)
    (arrived * torch.nan).sum().backward()
    carrier.backward(gradient=leaf.grad)
    assert weight.grad is not None
    assert weight.grad.isnan().all()


@pytest.mark.parametrize("layer_in_place", [nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True)])
@pytest.mark.parametrize("activation", [torch.randn(2, 3), (torch.randn(2, 3), LARGE)])
def test_a_stage_may_begin_with_a_layer_that_works_in_place(
    layer_in_place: nn.Module, activation: Activation
) -> None:
    outputs = learning(activation)
    leave, enter = crossing(outputs)
    leaf, arrived = arrive(leave(outputs), enter)
    layer_in_place(tensors_of(arrived)[0]).sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize(
    ("agreed", "returned"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4)),
        (torch.zeros(2, 3), torch.zeros(2, 3).half()),
        ((torch.zeros(2), 1.5), (torch.zeros(2), 2.5)),
        ((torch.zeros(2), None), (torch.zeros(2), torch.zeros(2))),
        (torch.zeros(2), torch.zeros(2, requires_grad=True)),
    ],
)
def test_what_was_not_agreed_is_refused_before_it_is_sent(
    agreed: Activation, returned: Activation
) -> None:
    leave, _ = crossing(agreed)
    with pytest.raises(BoundaryError, match="the stage's last, returned") as raised:
        leave(returned)
    assert raised.value.layer == 1


def test_training_and_evaluation_may_exchange_different_things() -> None:
    both = Boundary(
        {
            (True, 2): BoundarySpec.of((torch.zeros(2, 3), torch.zeros(2))),
            (False, 2): BoundarySpec.of(torch.zeros(2, 3)),
            (False, 1): BoundarySpec.of(torch.zeros(1, 3)),
        }
    )
    sender = Crossing(StageBoundaries(Boundary(), both), HOST, 0, "DeepSpeed")
    for training, samples, given in (
        (True, 2, (torch.zeros(2, 3), torch.zeros(2))),
        (False, 2, torch.zeros(2, 3)),
        (False, 1, torch.zeros(1, 3)),
    ):
        leave = sender.leave(training=training, samples=samples)
        assert leave is not None
        leave(given)
    assert sender.enter(training=True, samples=2) is None
