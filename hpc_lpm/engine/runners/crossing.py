"""Lets any activation cross between two stages of an outside engine, which sends one tensor."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hpc_lpm.activation import Activation, taken_apart
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.boundary import Boundary, BoundarySpec, StageBoundaries
from hpc_lpm.engine.runners.carrier import Carrier, carrier_of
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.errors import InputError

Enter = Callable[[Tensor], Activation]
Leave = Callable[[Activation], Tensor]


def _unvarying(engine: str) -> str:
    """Say why an engine refuses varying activations, and what to do."""
    return (
        f"{engine} only sends what is of one kind for every micro-batch: cut behind another layer "
        "or use another strategy"
    )


class Crossing:
    """Makes what unpacks the activations that enter one stage, and packs those that leave it.

    Args:
        boundaries: what crosses the boundaries of the stage.
        device: of the stage.
        layer: the index of the stage's last layer.
        engine: what the engine is called in messages.
        shows_graph: whether the engine must see the history of what leaves, as one does that runs
            the halves of backward passes apart. A boundary then carries one tensor that learns.
    """

    def __init__(
        self,
        boundaries: StageBoundaries,
        device: torch.device,
        layer: int,
        engine: str,
        *,
        shows_graph: bool = False,
    ) -> None:
        self._engine = engine
        self._shows_graph = shows_graph
        self._boundaries = boundaries
        self._device = device
        self._layer = layer

    def require_unvarying(self, context: RunContext) -> None:
        """Refuse a cut over which activations were found to vary (collective).

        Raises:
            InputError: on every rank alike.
        """

        def check() -> None:
            if self._boundaries.outgoing.varies:
                raise InputError(
                    f"--strategy {context.settings.strategy} was given a plan that cuts behind "
                    f"layer {self._layer} {context.model.layers[self._layer].name}, whose output "
                    "varies between micro-batches of the same size, but "
                    f"{_unvarying(self._engine)}."
                )
            unseen = [spec for spec in self._trained() if not is_history_seen(spec, self._device)]
            if self._shows_graph and unseen:
                raise InputError(
                    f"--strategy {context.settings.strategy} was given a plan that cuts behind "
                    f"layer {self._layer} {context.model.layers[self._layer].name}, over which "
                    f"{unseen[0]} crosses and not exactly one floating-point tensor with a "
                    f"gradient, but {self._engine} must see how that one comes about to run the "
                    "halves of backward passes apart: cut behind another layer or use another "
                    "strategy."
                )

        run_on_every_rank(
            context.job, check, (InputError,), lambda problem, _: InputError(f"{problem}.")
        )

    def _trained(self) -> list[BoundarySpec]:
        """Return what leaves the stage in training."""
        specs = self._boundaries.outgoing.specs.items()
        return [spec for (training, _), spec in specs if training]

    def enter(self, *, training: bool, samples: int) -> Enter | None:
        """Return what unpacks a micro-batch of this kind and size, None on the first stage."""
        if not self._boundaries.incoming.specs:
            return None
        spec = _agreed(self._boundaries.incoming, training, samples)
        carrier = carrier_of(spec, self._device)
        return lambda received: spec.structure.fill(carrier.unpack(received))

    def leave(self, *, training: bool, samples: int) -> Leave | None:
        """Return what packs a micro-batch of this kind and size, None on the last stage.

        It raises a BoundaryError if the activation is not what was agreed.
        """
        if not self._boundaries.outgoing.specs:
            return None
        spec = _agreed(self._boundaries.outgoing, training, samples)
        carrier = carrier_of(spec, self._device)
        leave = _Leave(spec, carrier, self._device, self._layer, self._engine)
        leave.shows_graph = training and self._shows_graph
        return leave

    def carried(self, boundary: Boundary, *, training: bool, samples: int) -> Tensor | None:
        """Return a tensor like those that cross a boundary, None if the pipeline ends there."""
        if not boundary.specs:
            return None
        spec = _agreed(boundary, training, samples)
        return carrier_of(spec, self._device).example().requires_grad_(training)


def is_history_seen(spec: BoundarySpec, device: torch.device) -> bool:
    """Tell if an engine can see the history of what crosses: of exactly one tensor that learns."""
    return carrier_of(spec, device).shows_history and spec.tensors[0].requires_gradient


def _agreed(boundary: Boundary, training: bool, samples: int) -> BoundarySpec:
    spec = boundary.agreed(training=training, samples=samples)
    assert spec is not None, "boundaries that vary are refused before training"
    return spec


class _Leave:
    """Checks an activation that leaves a stage, and packs it."""

    def __init__(
        self,
        spec: BoundarySpec,
        carrier: Carrier,
        device: torch.device,
        layer: int,
        engine: str,
    ) -> None:
        self.shows_graph = False
        self._unvarying = _unvarying(engine)
        self._spec = spec
        self._carrier = carrier
        self._layer = layer
        # Engines run backward from what a stage sends, even if nothing in the stage can learn.
        self._handle = torch.zeros((), device=device, requires_grad=True)

    def __call__(self, activation: Activation) -> Tensor:
        found = BoundarySpec.of(activation)
        # Checked before sending: a message of another size than expected ends both ranks.
        if found != self._spec:
            raise BoundaryError(
                f"the layer, the stage's last, returned {found} where {self._spec} was agreed "
                f"before training, and {self._unvarying}",
                self._layer,
            )
        agreed = zip(found.tensors, self._spec.tensors, strict=True)
        if any(one.requires_gradient and not other.requires_gradient for one, other in agreed):
            raise BoundaryError(
                "the layer, the stage's last, returned a tensor that requires a gradient, which it "
                f"did not before training, and {self._unvarying}",
                self._layer,
            )
        tensors, _ = taken_apart(activation)
        if self.shows_graph:
            return self._carrier.with_history(tensors[0])
        packed: Tensor = _Pack.apply(self._handle, self._carrier, tensors)  # type: ignore[no-untyped-call]
        return packed


class _Pack(torch.autograd.Function):
    """Makes tensors a carrier; backwards, runs backward from all that have a gradient, at once.

    The carrier has no history in autograd but this function: what has no gradient is left out of
    the backward pass, as it is where the model is not cut, instead of being given zeros.
    """

    @staticmethod
    def forward(ctx: Any, handle: Tensor, carrier: Carrier, tensors: Sequence[Tensor]) -> Tensor:
        ctx.carrier = carrier
        ctx.tensors = tensors
        return carrier.pack(tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        gradients = zip(ctx.tensors, ctx.carrier.gradients(gradient), strict=True)
        given = [
            (tensor, of_it)
            for tensor, of_it in gradients
            if tensor.requires_grad and of_it is not None
        ]
        if given:
            roots, with_gradient = zip(*given, strict=True)
            torch.autograd.backward(roots, with_gradient)
        return None, None, None
