"""Models of the package transformers from small configurations."""

from collections.abc import Callable
from typing import Any

import transformers
from torch import Tensor, nn

from tests.models.zoo.specimen import (
    CLASSES,
    IMAGE_SIZE,
    VOCABULARY,
    Specimen,
    of_images,
    of_next_tokens,
)

LAYERS, WIDTH, HEADS, INNER, POSITIONS = 4, 32, 4, 64, 32

COMMON = {
    "vocab_size": VOCABULARY,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
USUAL = {
    **COMMON,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}
"""The names that most configurations have for their sizes."""
DECODER = {**USUAL, "intermediate_size": INNER}
GROUPED = {**DECODER, "num_key_value_heads": 2}
SHORT = {**COMMON, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS}
ENCODER = {**DECODER, "type_vocab_size": 2}
IMAGES = {"num_labels": CLASSES, "num_channels": 3}


class Logits(nn.Module):
    """Takes one tensor and returns the logits alone."""

    def __init__(self, network: nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        return self.network(**dict.fromkeys(self.inputs, x)).logits


def _built(kind: str, task: str, values: dict[str, Any], inputs: tuple[str, ...]) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(**values)
    model: Callable[[Any], nn.Module] = getattr(transformers, f"{kind}{task}")
    return Logits(model(config), inputs)


def _language(kind: str, values: dict[str, Any], task: str = "ForCausalLM") -> Specimen:
    return of_next_tokens(
        f"transformers {kind}",
        lambda: _built(kind, task, values, ("input_ids",)),
        "masked token" if "Masked" in task else "next token",
    )


def _sequences(kind: str, values: dict[str, Any]) -> Specimen:
    inputs = ("input_ids", "decoder_input_ids")
    return of_next_tokens(
        f"transformers {kind}",
        lambda: _built(kind, "ForConditionalGeneration", values, inputs),
        "sequence to sequence",
    )


def _images(kind: str, values: dict[str, Any]) -> Specimen:
    values = {**IMAGES, **values}
    return of_images(
        f"transformers {kind}",
        lambda: _built(kind, "ForImageClassification", values, ("pixel_values",)),
        "image classifier",
    )


DECODERS = [
    _language("GPT2", SHORT, "LMHeadModel"),
    _language(
        "GPTNeo",
        {
            **COMMON,
            "hidden_size": WIDTH,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "attention_types": [[["global", "local"], LAYERS // 2]],
            "max_position_embeddings": POSITIONS,
            "window_size": 8,
            "embed_dropout": 0.1,
            "attention_dropout": 0.1,
        },
    ),
    _language("GPTNeoX", {**DECODER, "hidden_dropout": 0.1}),
    _language("GPTJ", {**SHORT, "rotary_dim": 4}),
    _language("CodeGen", {**SHORT, "rotary_dim": 4}),
    _language(
        "OPT",
        {
            **COMMON,
            "hidden_size": WIDTH,
            "ffn_dim": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            "word_embed_proj_dim": 16,
            "layerdrop": 0.0,
        },
    ),
    _language(
        "Bloom",
        {**COMMON, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "hidden_dropout": 0.1},
    ),
    _language("Llama", GROUPED),
    _language("Mistral", {**GROUPED, "sliding_window": 8}),
    _language("Qwen2", GROUPED),
    _language("Qwen3", {**GROUPED, "head_dim": 8}),
    _language("Phi", {**DECODER, "partial_rotary_factor": 0.5, "resid_pdrop": 0.1}),
    _language("Gemma", {**GROUPED, "head_dim": 8}),
    _language("Falcon", {**USUAL, "alibi": False, "hidden_dropout": 0.1}),
    _language("StableLm", {**GROUPED, "use_parallel_residual": True}),
    _language(
        "Mpt",
        {**COMMON, "d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": 32},
    ),
    _language("Mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    _language(
        "Mamba",
        {**COMMON, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 4},
    ),
]

ENCODERS = [
    _language("Bert", ENCODER, "ForMaskedLM"),
    _language("Roberta", {**ENCODER, "max_position_embeddings": 40}, "ForMaskedLM"),
    _language("Albert", {**ENCODER, "embedding_size": 16}, "ForMaskedLM"),
    _language(
        "DistilBert",
        {
            **COMMON,
            "dim": WIDTH,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "hidden_dim": INNER,
            "max_position_embeddings": POSITIONS,
        },
        "ForMaskedLM",
    ),
    _language("Electra", {**ENCODER, "embedding_size": 16}, "ForMaskedLM"),
    _language(
        "Deberta",
        {**ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
        "ForMaskedLM",
    ),
    _language(
        "MobileBert",
        {**ENCODER, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
        "ForMaskedLM",
    ),
]

BOTH_SIDES = [
    _sequences(
        "T5",
        {
            **COMMON,
            "d_model": WIDTH,
            "d_kv": 8,
            "d_ff": INNER,
            "num_layers": 2,
            "num_heads": HEADS,
            "decoder_start_token_id": 0,
        },
    ),
    _sequences(
        "Bart",
        {
            **COMMON,
            "d_model": WIDTH,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": HEADS,
            "decoder_attention_heads": HEADS,
            "encoder_ffn_dim": INNER,
            "decoder_ffn_dim": INNER,
            "max_position_embeddings": POSITIONS,
        },
    ),
]

PATCHED = {
    "image_size": IMAGE_SIZE,
    "patch_size": 8,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "hidden_dropout_prob": 0.1,
}
VISION = [
    _images("ViT", PATCHED),
    _images("DeiT", PATCHED),
    _images(
        "Swin",
        {
            "image_size": IMAGE_SIZE,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
            "drop_path_rate": 0.1,
        },
    ),
    _images("ConvNext", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}),
    _images(
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 1, 1]},
    ),
    _images(
        "RegNet",
        {
            "embedding_size": 8,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 2, 1],
            "groups_width": 8,
        },
    ),
    _images("MobileNetV2", {"depth_multiplier": 0.25, "min_depth": 8, "image_size": IMAGE_SIZE}),
]

OF_TRANSFORMERS = [*DECODERS, *ENCODERS, *BOTH_SIDES, *VISION]
