"""A captured network computes what the user's module computes, to the last bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from captured_networks import (
    DenseNetwork,
    EncoderDecoder,
    MixtureNetwork,
    OwnGradients,
    ResidualNetwork,
    UNetwork,
    images,
    results_of_chain,
    results_of_module,
    tokens,
    two_vectors,
)
from torch import Tensor, nn

from hpc_lpm.models.capture import capture_model
from hpc_lpm.models.layered import LayeredModel

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def pixels(samples: int) -> Tensor:
    return torch.randn(samples, 3, 16, 16, generator=torch.Generator().manual_seed(samples))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=20, n_positions=16, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama(attention: str) -> nn.Module:
    config = transformers.LlamaConfig(
        **SMALL, num_key_value_heads=1, vocab_size=20, use_cache=False, attention_dropout=0.1,
        max_position_embeddings=16, attn_implementation=attention,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=5)
    return transformers.ViTForImageClassification(config)


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 2], layer_type="basic", num_labels=5
    )
    return transformers.ResNetForImageClassification(config)


def bert() -> nn.Module:
    config = transformers.BertConfig(**SMALL, vocab_size=20, max_position_embeddings=16)
    return transformers.BertForMaskedLM(config)


def masked_tokens(samples: int) -> dict[str, Tensor]:
    return {
        "attention_mask": (tokens(samples, 8, 3) > 0).long(),
        "input_ids": tokens(samples),
    }


def two_texts(samples: int) -> tuple[Tensor, Tensor]:
    return tokens(samples, 6), tokens(samples, 5)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "residual": (ResidualNetwork, images),
    "dense": (DenseNetwork, images),
    "u-net": (UNetwork, images),
    "encoder-decoder": (EncoderDecoder, two_texts),
    "mixture of experts": (MixtureNetwork, tokens),
    "own gradients": (OwnGradients, two_vectors),
    "gpt2": (gpt2, tokens),
    "llama": (lambda: llama("sdpa"), tokens),
    "llama, eager": (lambda: llama("eager"), tokens),
    "vit": (vit, pixels),
    "resnet": (resnet, pixels),
    "bert with padding": (bert, masked_tokens),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_losses_gradients_and_buffers_are_the_modules_own_bits(case: str) -> None:
    create, inputs = CASES[case]
    torch.manual_seed(1)
    module = create()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = capture_model(module, inputs(3))
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert len(model.layers) >= 4
    for apart in (False, True):
        for samples in (3, 5):
            for training in (True, False):
                module.load_state_dict(before)
                module.zero_grad()
                layers = [layer.build().train(training) for layer in model.layers]
                expected = results_of_module(module.train(training), inputs(samples), _logits)
                found = results_of_chain(layers, inputs(samples), apart)
                assert torch.equal(found[0], expected[0])
                assert torch.equal(found[1], expected[1])
                _check_state(module, model, layers)


def _check_state(module: nn.Module, model: LayeredModel, layers: list[nn.Module]) -> None:
    gradients: dict[str, Tensor | None] = dict.fromkeys(dict(module.named_parameters()))
    buffers = dict(module.named_buffers())
    # As the engine adds up the gradients of tied weights: the owner's come last.
    for layer, built in reversed(list(zip(model.layers, layers, strict=True))):
        for own, parameter in built.named_parameters():
            name = layer.original[own]
            if gradients[name] is None:
                gradients[name] = parameter.grad
            elif parameter.grad is not None:
                gradients[name] = gradients[name] + parameter.grad
        for own, buffer in built.named_buffers():
            assert torch.equal(buffer, buffers[layer.original[own]]), own
    for name, parameter in module.named_parameters():
        found = gradients[name]
        assert (found is None) == (parameter.grad is None), name
        assert found is None or torch.equal(found, parameter.grad), name


def _logits(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits
