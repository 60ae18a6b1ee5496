"""Models named hf:PATH: built from their configuration, checked against the data, never fetched."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import cross_entropy
from hpc_lpm.models.registry import create_model
from hpc_lpm.models.state_names import original_state
from hpc_lpm.models.transformers_model import build_module
from hpc_lpm.random_streams import seeded_generators

pytestmark = pytest.mark.usefixtures("one_thread")

transformers = pytest.importorskip("transformers")

TEXT = DataShape("text", (10,), 50)
IMAGES = DataShape("image", (1, 16, 16), 7)
SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 50,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 16,
    "architectures": ["GPT2LMHeadModel"],
    "use_cache": True,
}
T5 = {
    "model_type": "t5",
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
VIT = {
    **{key: value for key, value in SIZES.items() if key != "vocab_size"},
    "model_type": "vit",
    "image_size": 16,
    "patch_size": 8,
    "num_channels": 1,
    "num_labels": 7,
    "architectures": ["ViTForImageClassification"],
}


def written(document: object, folder: Path, name: str = "config.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def tokens(samples: int = 3, length: int = 11) -> Tensor:
    return torch.randint(3, 50, (samples, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (GPT2, "GPT2LMHeadModel"),
        ({"model_type": "llama", **SIZES}, "LlamaForCausalLM"),
        ({"model_type": "bert", **SIZES}, "BertForMaskedLM"),
        ({"model_type": "bert", **SIZES, "architectures": ["BertLMHeadModel"]}, "BertLMHeadModel"),
        (T5, "T5ForConditionalGeneration"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_class_is_that_of_the_configuration_or_else_of_its_type(
    document: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    module = build_module(TEXT, written(document, tmp_path))
    assert type(module).__name__ == kind
    assert isinstance(module, getattr(transformers, kind))
    logits = module(tokens()[:, :-1])
    assert logits.shape == (3, 10, 50)
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())


def test_images_are_classified(tmp_path: Path) -> None:
    module = build_module(IMAGES, written(VIT, tmp_path))
    assert module(torch.randn(2, 1, 16, 16)).shape == (2, 7)
    assert next(iter(dict(module.named_children()))) == "vit", "names are those of the original"


def test_loss_on_shifted_data_is_that_of_the_model_on_labels(tmp_path: Path) -> None:
    """Text data are shifted already, transformers shifts its labels itself."""
    module = build_module(TEXT, written(GPT2, tmp_path)).eval()
    ids = tokens()
    inputs, targets = ids[:, :-1], ids[:, 1:]
    module.zero_grad()
    loss = cross_entropy(module(inputs), targets)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in module.parameters()]

    module.zero_grad()
    theirs = transformers.GPT2LMHeadModel.forward(module, ids, labels=ids).loss
    theirs.backward()
    torch.testing.assert_close(loss, theirs, rtol=1e-6, atol=0)
    for ours, parameter in zip(gradients, module.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-7)


def test_logits_are_those_of_the_original(tmp_path: Path) -> None:
    module = build_module(TEXT, written(T5, tmp_path)).eval()
    ids = tokens()
    original = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)).eval()
    original.load_state_dict(module.state_dict(), strict=True)
    expected = original(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
    assert torch.equal(module(ids), expected)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_gives_its_weights_and_its_configuration_alone_does_not(
    sharded: bool, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    original = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    original.save_pretrained(tmp_path, max_shard_size="8KB" if sharded else "1GB")
    assert (tmp_path / "model.safetensors").exists() != sharded
    torch.manual_seed(5)
    loaded = build_module(TEXT, tmp_path)
    assert loaded.training
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    anew = build_module(TEXT, tmp_path / "config.json")
    assert not torch.equal(anew.lm_head.weight, original.lm_head.weight)


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    original = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    original.save_pretrained(tmp_path)
    written({**GPT2, "n_layer": 3}, tmp_path)
    with pytest.raises(InputError, match=r"nothing of the right shape for transformer.h.2.*GPT2LM"):
        build_module(TEXT, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be loaded into a GPT2LMHeadModel"):
        build_module(TEXT, tmp_path)


def test_weights_of_another_format_are_not_left_out_silently(tmp_path: Path) -> None:
    written(GPT2, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"pytorch_model.bin, accepted are safetensors"):
        build_module(TEXT, tmp_path)


@pytest.mark.parametrize(
    ("document", "shape", "message"),
    [
        ({**GPT2, "vocab_size": 40}, TEXT, "vocab_size 40, the data set needs at least 50"),
        ({**GPT2, "n_positions": 8}, TEXT, "max_position_embeddings 8, .* at least the 10 tokens"),
        ({**VIT, "num_labels": 9}, IMAGES, "num_labels 9, the data set needs 7"),
        ({**VIT, "num_channels": 3}, IMAGES, "num_channels 3, the data set needs 1"),
        (VIT, TEXT, "takes image, the data set holds text"),
        (GPT2, IMAGES, "for causal LM, which takes text, the data set holds image"),
        (VIT, DataShape("image", (5,), 7), r"the data set's have shape \(5,\)"),
        ({**GPT2, "architectures": ["GPT2Model"]}, TEXT, "the class GPT2Model, accepted are"),
        ({"model_type": "convnext"}, TEXT, "model_type convnext for text, accepted are"),
        (
            {**GPT2, "model_type": "gpt3"},
            TEXT,
            "model_type 'gpt3', which .* does not know, did you mean",
        ),
        ({**GPT2, "n_head": 3}, TEXT, "cannot be built from its configuration"),
        ({"hidden_size": 3}, TEXT, "has no model_type"),
        ([], TEXT, "has no model_type"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(
    document: object, shape: DataShape, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        build_module(shape, written(document, tmp_path))


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config.json cannot be read .* folder with a config"):
        build_module(TEXT, tmp_path)


def test_without_transformers_the_package_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r'pip install "hpc-lpm\[transformers\]"'):
        build_module(TEXT, written(GPT2, tmp_path))


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    original = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    original.save_pretrained(tmp_path)
    assert isinstance(build_module(TEXT, tmp_path), nn.Module)


@pytest.mark.parametrize(("document", "shape"), [(GPT2, TEXT), (T5, TEXT), (VIT, IMAGES)])
def test_the_chain_computes_what_the_model_does_and_has_its_names(
    document: dict[str, Any], shape: DataShape, tmp_path: Path
) -> None:
    identifier = f"hf:{written(document, tmp_path)}"
    chain = create_model(identifier, shape, seed=3)
    assert chain.name == identifier
    with seeded_generators(3):
        module = build_module(shape, tmp_path)
    layers = {index: chain.build_layer(index, 3) for index in range(len(chain.layers))}
    state = original_state(chain, layers)
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    paths = {name for name, _ in module.named_modules()}
    assert all(layer.name.partition("#")[0] in paths for layer in chain.layers)
    inputs = tokens()[:, :-1] if shape is TEXT else torch.randn(3, *shape.input_shape)
    found = inputs
    with torch.no_grad():
        for layer in layers.values():
            found = layer.eval()(found)
        assert torch.equal(found, module.eval()(inputs))


def test_a_chain_starts_from_the_weights_in_its_folder_whatever_the_seed(tmp_path: Path) -> None:
    original = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    original.save_pretrained(tmp_path)
    for seed in (0, 1):
        chain = create_model(f"hf:{tmp_path}", TEXT, seed)
        layers = {index: chain.build_layer(index, seed) for index in range(len(chain.layers))}
        for name, tensor in original_state(chain, layers).items():
            assert torch.equal(tensor, original.state_dict()[name])
