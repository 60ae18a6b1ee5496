"""A chain of layers whose passes can each be run, and so measured, on its own."""

import copy

import torch
from torch import Tensor, nn

from hpc_lpm.errors import InputError
from hpc_lpm.models.activation import Activation
from hpc_lpm.models.compute_format import PLAIN, ComputeFormat
from hpc_lpm.models.layered import LayeredModel, as_tuple


class DetachedChain:
    """Newly built layers of a model in training mode, cut from one another.

    Every layer starts from leaves, as the first layer of a stage does, so its backward pass ends at
    its own inputs. Parameter gradients accumulate over the micro-batches as in training. The loss
    belongs to the last layer. Run the passes in the order of training: `forward(0)` to
    `forward(L - 1)`, then `backward(L - 1)` down to `backward(0)`.
    """

    def __init__(
        self,
        model: LayeredModel,
        inputs: Tensor,
        targets: Tensor,
        device: torch.device,
        seed: int,
        compute_format: ComputeFormat = PLAIN,
    ) -> None:
        self.model = model
        # Copied, for a user's factory may hand out a module that is used elsewhere.
        self.layers = [
            copy.deepcopy(model.build_layer(index, seed)).to(device).train()
            for index in range(len(model.layers))
        ]
        for layer in self.layers:
            compute_format.arrange(layer)
        self._format = compute_format
        self._device = device
        self._first_inputs = compute_format.arranged(inputs.to(device))
        self._targets = targets.to(device)
        self._leaves: dict[int, Activation] = {}
        self._outputs: dict[int, Activation] = {}
        self._loss: Tensor | None = None

    def __len__(self) -> int:
        return len(self.layers)

    def forward(self, index: int) -> None:
        """Run the forward pass of a layer and keep its graph.

        Raises:
            InputError: if the layer cannot run on what the layer before it returned.
        """
        leaves = self._leaves_of(index)
        self._leaves[index] = leaves
        try:
            with self._format.autocast(self._device):
                self._outputs[index] = self.layers[index](leaves)
                if index == len(self) - 1:
                    self._loss = self.model.loss(_single(self._outputs[index]), self._targets)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise InputError(self._describe_failure(index, leaves, error)) from error

    def backward(self, index: int) -> None:
        """Run a layer's backward pass from the next layer's gradients and free what it kept."""
        outputs = as_tuple(self._outputs.pop(index))
        if index == len(self) - 1:
            assert self._loss is not None
            self._loss.backward()  # type: ignore[no-untyped-call]
            self._loss = None
            return
        leaves = as_tuple(self._leaves.pop(index + 1))
        roots, gradients = [], []
        for output, leaf in zip(outputs, leaves, strict=True):
            gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
            if output.grad_fn is not None:
                roots.append(output)
                gradients.append(gradient)
            elif output.requires_grad:
                # An input that is passed on, such as a skip connection: there is nothing to compute
                # for it, and autograd would copy the gradient.
                output.grad = gradient if output.grad is None else output.grad + gradient
        if roots:
            torch.autograd.backward(roots, gradients)

    def output_bytes(self, index: int) -> int:
        """Return the bytes of all tensors that a layer returned, between its two passes."""
        return sum(tensor.nbytes for tensor in as_tuple(self._outputs[index]))

    def own_storages(self, index: int) -> set[int]:
        """Return the addresses of the storages of a layer's parameters and buffers."""
        layer: nn.Module = self.layers[index]
        return {
            tensor.untyped_storage().data_ptr()
            for tensor in (*layer.parameters(), *layer.buffers())
        }

    def _describe_failure(self, index: int, inputs: Activation, error: Exception) -> str:
        given = ", ".join(
            f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            for tensor in as_tuple(inputs)
        )
        source = "layer before returns" if index else "data set holds"
        reason = str(error).strip().splitlines()
        return (
            f"layer {index} ({self.model.layers[index].name}) of model {self.model.name!r} fails "
            f"on its inputs {given}: {reason[0] if reason else type(error).__name__}; a layer must "
            f"accept what the {source} and must not change it in place."
        )

    def _leaves_of(self, index: int) -> Activation:
        if index == 0:
            return self._first_inputs
        previous = self._outputs[index - 1]
        leaves = tuple(
            tensor.detach().requires_grad_(tensor.is_floating_point())
            for tensor in as_tuple(previous)
        )
        return leaves if isinstance(previous, tuple) else leaves[0]


def _single(activation: Activation) -> Tensor:
    if not isinstance(activation, Tensor):
        raise TypeError(f"the last layer returned {type(activation).__name__}, not one tensor")
    return activation
