"""Sends and receives what crosses the two boundaries of a stage.

What was agreed on in the rehearsal crosses without a word more. Where a micro-batch has something
else to carry, its message has none of the parts that were agreed, and one that says what it
consists of follows on a channel of its own; its gradients go back likewise.
"""

import pickle
from collections.abc import Sequence

import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.boundary import (
    LOSS,
    Boundary,
    BoundarySpec,
    MessagePart,
    TensorSpec,
)
from hpc_lpm.engine.pipeline.transport.channel import Channel, StageChannels

_LENGTH = TensorSpec((1,), torch.int64)


class IncomingBoundary:
    """This stage's end of the boundary to the stage before it."""

    def __init__(self, boundary: Boundary, channels: StageChannels) -> None:
        described = channels.described or channels.agreed
        self._boundary = boundary
        self._agreed, self._agreed_back = channels.agreed.from_previous, channels.agreed.to_previous
        self._described, self._described_back = described.from_previous, described.to_previous

    def receive(
        self, *, training: bool, samples: int, device: torch.device
    ) -> tuple[Activation, BoundarySpec]:
        """Receive an activation as leaves of a graph, and return it with what it consists of.

        Raises:
            BoundaryError: if it does not come in time.
        """
        spec = self._boundary.agreed(training=training, samples=samples)
        received: tuple[Tensor | None, ...] = ()
        if spec is not None:
            received = self._agreed.receive()
        if spec is None or any(part is None for part in received):
            spec = self._description()
            self._described.expect([spec.messages()])
            received = self._described.receive()
        tensors = [part.to(device) for part in received if part is not None]
        return spec.activation(tensors[: len(spec.tensors)], training=training), spec

    def send_gradients(
        self,
        spec: BoundarySpec,
        gradients: Sequence[Tensor | None],
        *,
        samples: int,
        loss: Tensor | None = None,
    ) -> None:
        """Send the gradients of an activation's tensors that require one.

        Behind them goes the `loss`, a tensor as `LOSS` describes, if there is one.
        """
        agreed = self._boundary.agreed(training=True, samples=samples)
        behind = () if loss is None else (loss,)
        if spec is agreed:
            _send_any(self._agreed_back, (*spec.arranged_gradients(gradients), *behind))
            return
        if agreed is not None:
            _send_any(self._agreed_back, (*agreed.gradient_messages(), *behind))
            behind = ()
        _send_any(self._described_back, (*spec.arranged_gradients(gradients), *behind))

    def _description(self) -> BoundarySpec:
        length = self._one(_LENGTH)
        description = self._one(TensorSpec((int(length),), torch.uint8))
        spec: BoundarySpec = pickle.loads(description.cpu().numpy().tobytes())
        return spec

    def _one(self, spec: TensorSpec) -> Tensor:
        self._described.expect([(spec,)])
        (tensor,) = self._described.receive()
        assert tensor is not None
        return tensor


class OutgoingBoundary:
    """This stage's end of the boundary to the stage after it; `layer` is the stage's last one."""

    def __init__(self, boundary: Boundary, channels: StageChannels, layer: int) -> None:
        described = channels.described or channels.agreed
        self._boundary = boundary
        self._may_differ = channels.described is not None
        self._agreed, self._agreed_back = channels.agreed.to_next, channels.agreed.from_next
        self._described, self._described_back = described.to_next, described.from_next
        self._layer = layer

    def check(self, outputs: Activation, *, training: bool, samples: int) -> BoundarySpec:
        """Return what an activation consists of: what was agreed, or something else.

        Raises:
            BoundaryError: if it is something else, over a transport that carries nothing else.
        """
        found = BoundarySpec.of(outputs)
        agreed = self._boundary.agreed(training=training, samples=samples)
        if agreed is None:
            return found
        if found == agreed and not _needs_more(found, agreed):
            return agreed
        if self._may_differ:
            return found
        raise BoundaryError(
            f"the layer, the stage's last, returned {found} where {agreed} was agreed before "
            "training: give --boundary-shapes sent, so that every message says what it consists of",
            self._layer,
        )

    def check_again(self, outputs: Activation, sent: BoundarySpec) -> None:
        """Check the tensors that a stage returns when it is run again.

        Raises:
            BoundaryError: if their shapes are not those that were sent the first time, or more of
                them require a gradient.
        """
        found = BoundarySpec.of(outputs)
        if found.tensors != sent.tensors or _needs_more(found, sent):
            raise BoundaryError(
                f"the layer, the stage's last, returned {found} under the weights of the backward "
                f"pass but {sent} under those of the forward pass: choose --weights live or stash",
                self._layer,
            )

    def send(
        self, spec: BoundarySpec, outputs: Activation, *, training: bool, samples: int
    ) -> None:
        """Send an activation that `check` has described."""
        agreed = self._boundary.agreed(training=training, samples=samples)
        tensors = spec.arranged(outputs) or (torch.zeros(1, dtype=torch.uint8),)
        if spec is agreed:
            self._agreed.send(tensors)
            return
        if agreed is not None:
            self._agreed.send(agreed.messages())
        description = torch.frombuffer(bytearray(pickle.dumps(spec)), dtype=torch.uint8)
        self._described.send((torch.tensor([len(description)]),))
        self._described.send((description,))
        self._described.send(tensors)

    def flush(self) -> None:
        """Wait until every activation has left.

        Raises:
            BoundaryError: if the stage after does not take one in time.
        """
        for channel in (self._agreed, self._described):
            channel.flush()

    def receive_gradients(
        self, spec: BoundarySpec, device: torch.device, *, samples: int, with_loss: bool
    ) -> tuple[tuple[Tensor | None, ...], Tensor | None]:
        """Receive the gradients of the tensors of an activation that require one, and the loss.

        None stands for a tensor that the stages after have not used, and for a loss that is not
        expected.

        Raises:
            BoundaryError: if they do not come in time.
        """
        wanted = spec.gradients()
        agreed = self._boundary.agreed(training=True, samples=samples)
        behind: tuple[TensorSpec, ...] = (LOSS,) if with_loss else ()
        received: tuple[Tensor | None, ...] = ()
        if agreed is not None and (*agreed.gradient_messages(), *behind):
            received = self._agreed_back.receive()
        loss = received[-1] if received and with_loss else None
        if spec is not agreed:
            if agreed is not None:
                behind = ()
            received = ()
            if message := (*spec.gradient_messages(), *behind):
                self._described_back.expect([message])
                received = self._described_back.receive()
            loss = received[-1] if behind else loss
        gradients = tuple(
            None if tensor is None else gradient.arrived(tensor.to(device))
            for gradient, tensor in zip(wanted, received, strict=False)
        )
        return gradients, loss


def _send_any(channel: Channel, message: Sequence[MessagePart]) -> None:
    if message:
        channel.send(message)


def _needs_more(found: BoundarySpec, known: BoundarySpec) -> bool:
    """Tell if a tensor requires a gradient that is not known to require one."""
    return any(
        one.requires_gradient and not other.requires_gradient
        for one, other in zip(found.tensors, known.tensors, strict=True)
    )
