"""Positions, names and patterns of cuts, and what is said where they are wrong."""

import pytest

from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Layer, ModuleEnd
from hpc_lpm.planning.allowed_cuts import AllowedCuts


def layer(name, *ends):
    return Layer(name, list, tuple(ModuleEnd(path, kind) for path, kind in ends))


TRANSFORMER = [
    layer("wte", ("wte", "Embedding")),
    layer("h.0.attn", ("h.0.attn", "Attention")),
    layer("h.0.mlp.act"),
    layer("h.0.mlp.proj", ("h.0.mlp", "MLP"), ("h.0", "Block")),
    layer("h.1.attn", ("h.1.attn", "Attention")),
    layer("h.1.mlp.act"),
    layer("h.1.mlp.proj", ("h.1.mlp", "MLP"), ("h.1", "Block")),
    layer("ln", ("ln", "LayerNorm")),
    layer("head", ("head", "Linear")),
]


def own(*cuts, layers=TRANSFORMER):
    return AllowedCuts.of("gpt", layers).own(cuts)


def allowed(*patterns, layers=TRANSFORMER):
    return AllowedCuts.of("gpt", layers, patterns).positions[1:-1]


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ((4,), (0, 4, 9)),
        (("4", "7"), (0, 4, 7, 9)),
        (("wte",), (0, 1, 9)),
        (("h.0", "h.1"), (0, 4, 7, 9)),
        (("h.0.mlp.proj", 7), (0, 4, 7, 9)),
        (("h",), (0, 7, 9)),
        ((), (0, 9)),
    ],
)
def test_a_number_cuts_in_front_of_a_layer_and_a_name_behind_it(cuts, expected):
    assert own(*cuts) == expected


@pytest.mark.parametrize(
    ("cuts", "sentence"),
    [
        ((0,), "has the position 0, accepted for the 9 layers of gpt are 1 to 8"),
        (("9",), "has the position 9"),
        (("9" * 5000,), "has the position 9{18}, accepted"),
        ((-1,), "has the position -1"),
        (("h.2",), r"names 'h.2', but no layer .*, did you mean 'h.1'\?"),
        (("head",), "behind 'head', with which gpt ends"),
        ((7, 4), "at 7, 4, accepted are positions that ascend"),
        ((4, "h.0"), "at 4, 4, accepted are positions that ascend"),
    ],
)
def test_a_cut_that_cannot_be_is_refused_with_what_is_accepted(cuts, sentence):
    with pytest.raises(InputError, match=sentence):
        own(*cuts)


def test_a_name_of_several_layers_is_refused_with_their_positions():
    layers = [layer("conv"), layer("act"), layer("pool"), layer("act"), layer("out")]
    with pytest.raises(InputError, match="name of 2 layers of gpt: give one of the positions 2, 4"):
        own("act", layers=layers)


def test_names_of_plain_layers_tell_which_modules_end_with_them():
    layers = [layer(name) for name in ("stem", "b.0.x", "b.0.y", "b.1.x", "tail.x", "b.2", "head")]
    assert own("b.0", "b.1", layers=layers) == (0, 3, 4, 7)
    # The layers that begin with b do not stand together.
    with pytest.raises(InputError, match="names 'b'"):
        own("b", layers=layers)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("type:Block",), (4, 7)),
        (("type:[ML]*",), (4, 7, 8)),
        (("h.*",), (4, 7)),
        (("h.*.*",), (2, 4, 5, 7)),
        (("**.act",), (3, 6)),
        (("h.**",), (2, 3, 4, 5, 6, 7)),
        (("wte", "type:Block"), (1, 4, 7)),
        (("h.[1-9]",), (7,)),
        (("h.?.mlp",), (4, 7)),
        (("head", "ln"), (8,)),
        ((), (1, 2, 3, 4, 5, 6, 7, 8)),
    ],
)
def test_a_pattern_matches_part_by_part(patterns, expected):
    assert allowed(*patterns) == expected


def test_a_name_with_the_signs_of_patterns_is_still_found():
    layers = [layer("x[0]"), layer("x[1]"), layer("x*"), layer("out")]
    assert allowed("x[1]", layers=layers) == (2,)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("h.2", r"'h.2', which matches no layer of gpt .*, did you mean 'h.1'\?"),
        (
            "type:Blok",
            r"'type:Blok', .*, did you mean 'Block'\?: accepted are Embedding, Attention",
        ),
        ("*.attn", "matches no layer"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_what_is_close(pattern, sentence):
    with pytest.raises(InputError, match=sentence):
        allowed("type:Block", pattern)


def test_a_class_is_asked_for_where_no_classes_are_known():
    with pytest.raises(InputError, match="no classes, since its profile names none: make it anew"):
        allowed("type:Block", layers=[layer("a"), layer("b")])


def test_own_cuts_keep_to_those_that_are_allowed():
    chosen = AllowedCuts.of("gpt", TRANSFORMER, ["type:Block"])
    assert chosen.own(["h.0"]) == (0, 4, 9)
    with pytest.raises(
        InputError, match=r"layer ln \(position 8\), which --cut-only-at type:Block"
    ):
        chosen.own([4, 8])
