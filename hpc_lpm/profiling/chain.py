"""A chain of layers whose passes can each be run, and so measured, on its own."""

import torch
from torch import Tensor, nn

from hpc_lpm.activation import (
    Activation,
    copied,
    leaves_like,
    moved,
    tensors_of,
    versions_of,
)
from hpc_lpm.errors import InputError
from hpc_lpm.models.compute_format import PLAIN, ComputeFormat
from hpc_lpm.models.examination import failing_layer
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.module_state import ModuleState
from hpc_lpm.split_backward.halves import SplitBackward


class DetachedChain:
    """Newly built layers of a model in training mode, cut from one another.

    Every layer starts from leaves, as the first layer of a stage does, so its backward pass ends at
    its own inputs. Parameter gradients accumulate over the micro-batches as in training. The loss
    belongs to the last layer. Run the passes in the order of training: `forward(0)` to
    `forward(L - 1)`, then `backward(L - 1)` down to `backward(0)`; instead of a layer's `backward`
    also `backward_input` and then `backward_weights`.
    """

    def __init__(
        self,
        model: LayeredModel,
        inputs: Activation,
        targets: Activation,
        device: torch.device,
        seed: int,
        compute_format: ComputeFormat = PLAIN,
    ) -> None:
        self.model = model
        self.layers = [
            model.build_layer(index, seed).to(device).train() for index in range(len(model.layers))
        ]
        for layer in self.layers:
            compute_format.arrange(layer)
        self._format = compute_format
        self._device = device
        self._first_inputs = compute_format.arranged(moved(inputs, device))
        self._targets = moved(targets, device)
        self._leaves: dict[int, Activation] = {}
        self._outputs: dict[int, Activation] = {}
        self._loss: Tensor | None = None
        self._split = SplitBackward()
        self._copying: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self.layers)

    def forward(self, index: int) -> None:
        """Run the forward pass of a layer and keep its graph.

        Raises:
            InputError: if the layer cannot run on what the layer before it returned.
        """
        leaves = self._first_inputs if index == 0 else leaves_like(self._outputs[index - 1])
        self._leaves[index] = leaves
        try:
            with self._format.autocast(self._device):
                self._outputs[index] = self._run(index, leaves)
                if index == len(self) - 1:
                    self._loss = self.model.loss(self._outputs[index], self._targets)
        except InputError:
            # A loss of the user's own has said what is wrong with it.
            raise
        except Exception as error:
            raise failing_layer(self.model, index, leaves, error) from error

    def _run(self, index: int, leaves: Activation) -> Activation:
        if index not in self._copying:
            # A layer that changes its input in place must not find a leaf, nor the data themselves.
            self._copying[index] = self._changes_input(index, leaves)
        if not self._copying[index]:
            return self.layers[index](leaves)
        return self.layers[index](copied(leaves, keep_history=True))

    @torch.no_grad()
    def _changes_input(self, index: int, leaves: Activation) -> bool:
        copies = copied(leaves)
        versions = versions_of(copies)
        state = ModuleState(self.layers[index])
        self.layers[index](copies)
        state.restore()
        return versions_of(copies) != versions

    def backward(self, index: int) -> None:
        """Run a layer's backward pass from the next layer's gradients and free what it kept."""
        roots, gradients = self._roots(index)
        if roots:
            torch.autograd.backward(roots, gradients)

    def backward_input(self, index: int) -> None:
        """Run the first half of a layer's backward pass instead, as a stage would."""
        self._split = SplitBackward()
        self._split.input_half(*self._roots(index), tensors_of(self._leaves[index]))

    def backward_weights(self) -> bool:
        """Run the second half of the pass that was begun last; tell if there was anything left."""
        split, self._split = self._split, SplitBackward()
        return split.weight_half()

    def _roots(self, index: int) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return what a layer's backward pass starts from, and the gradients of it."""
        outputs = tensors_of(self._outputs.pop(index))
        if index == len(self) - 1:
            loss, self._loss = self._loss, None
            return ([loss], [None]) if loss is not None and loss.requires_grad else ([], [])
        leaves = tensors_of(self._leaves.pop(index + 1))
        roots: list[Tensor] = []
        gradients: list[Tensor | None] = []
        for output, leaf in zip(outputs, leaves, strict=True):
            if leaf.grad is None or not output.requires_grad:
                continue
            if output.grad_fn is not None:
                roots.append(output)
                gradients.append(leaf.grad)
            else:
                # An input that is passed on, such as a skip connection: there is nothing to compute
                # for it, and autograd would copy the gradient.
                output.grad = leaf.grad if output.grad is None else output.grad + leaf.grad
        return roots, gradients

    def output_bytes(self, index: int) -> int:
        """Return the bytes of all tensors that a layer returned, between its two passes."""
        return sum(tensor.nbytes for tensor in tensors_of(self._outputs[index]))

    def own_storages(self, index: int) -> set[int]:
        """Return the addresses of the storages of a layer's parameters and buffers."""
        layer: nn.Module = self.layers[index]
        return {
            tensor.untyped_storage().data_ptr()
            for tensor in (*layer.parameters(), *layer.buffers())
        }
