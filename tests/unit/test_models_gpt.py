"""The decoder: causal attention, next-token loss, dropout only where asked for."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.models.gpt import Attention, gpt
from hpc_lpm.models.layered import Tie
from hpc_lpm.models.registry import create_model

TEXT = DataShape("text", (16,), 256)


def chain(identifier: str) -> nn.Sequential:
    model = create_model(identifier, TEXT)
    return nn.Sequential(*(model.build_layer(index, 0) for index in range(len(model.layers))))


def test_no_position_sees_what_comes_after_it() -> None:
    network = chain("gpt,layers=2,width=16,heads=4")
    tokens = torch.randint(256, (2, 16))
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 256
    before, after = network(tokens), network(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_attention_equals_its_formula() -> None:
    torch.manual_seed(0)
    layer = Attention(width=8, heads=2, dropout=0.0, blocks=1)
    nn.init.normal_(layer.query_key_value.weight)
    x = torch.randn(1, 5, 8)
    normal = (x - x.mean(-1, keepdim=True)) / torch.sqrt(
        x.var(-1, unbiased=False, keepdim=True) + 1e-5
    )
    joined = normal @ layer.query_key_value.weight.T
    heads: list[Tensor] = []
    for head in range(2):
        query, key, value = (
            joined[0, :, 8 * part + 4 * head : 8 * part + 4 * head + 4] for part in range(3)
        )
        scores = query @ key.T / math.sqrt(4)
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ value)
    expected = x[0] + torch.cat(heads, dim=-1) @ layer.projection.weight.T
    torch.testing.assert_close(layer(x)[0], expected)


def test_untrained_loss_is_that_of_guessing() -> None:
    model = create_model("gpt,layers=2,width=32", TEXT)
    tokens = torch.randint(256, (4, 16))
    assert model.loss(chain("gpt,layers=2,width=32")(tokens), tokens).item() == pytest.approx(
        math.log(256), abs=0.1
    )


def test_parameter_count_matches_the_hand_count() -> None:
    width, blocks = 16, 3
    attention = 2 * width + 3 * width * (width + 1) + width * (width + 1)
    feed_forward = 2 * width + 4 * width * (width + 1) + width * (4 * width + 1)
    head = 2 * width + 256 * (width + 1)
    expected = (256 + 16) * width + blocks * (attention + feed_forward) + head
    network = chain("gpt,layers=3,width=16,heads=4")
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_without_dropout_there_is_no_dropout_module() -> None:
    def count(identifier: str) -> int:
        return sum(isinstance(part, nn.Dropout) for part in chain(identifier).modules())

    assert count("gpt,layers=3") == 0
    assert count("gpt,layers=3,dropout=0.1") == 1 + 2 * 3


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("gpt,width=10,heads=3", "divisors of the width 10"),
        ("gpt,dropout=1", "0 <= dropout < 1"),
        ("gpt,layers=0", "from 1"),
    ],
)
def test_impossible_sizes_are_refused(identifier: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model(identifier, TEXT)


def test_images_are_refused() -> None:
    with pytest.raises(InputError, match="gpt takes text"):
        create_model("gpt", DataShape("image", (1, 32, 32), 10))


def test_a_tied_projection_starts_as_the_embedding_and_only_if_asked_for() -> None:
    shape = DataShape("text", (8,), 11)
    for tied, alike in ((True, True), (False, False)):
        model = gpt(shape, layers=1, width=8, heads=2, tied=tied)
        embedding = model.build_layer(0, 5)
        head = model.build_layer(len(model.layers) - 1, 5)
        assert torch.equal(embedding.token, head.weight) == alike


def test_a_tie_that_names_no_parameter_says_which_there_are() -> None:
    model = gpt(DataShape("text", (8,), 11), layers=1, width=8, heads=2)
    wrong = replace(model, ties=(Tie(0, "tokens", len(model.layers) - 1, "weight"),))
    with pytest.raises(InputError, match=r"'tokens' of a Embedding, accepted are token, position"):
        wrong.build_layer(len(model.layers) - 1, 0)
    with pytest.raises(InputError, match="a layer before it"):
        Tie(3, "weight", 1, "weight")


def test_text_with_one_class_a_sample_is_refused() -> None:
    with pytest.raises(InputError, match=r"gpt predicts the next token, the task .* 'classes'"):
        create_model("gpt", DataShape("text", (8,), 2, "classes", vocabulary=50))
