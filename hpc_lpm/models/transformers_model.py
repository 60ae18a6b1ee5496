"""Models of the package transformers, built from their configuration file, as chains of layers.

`hf:CONFIG.json` names a configuration, whose model starts with weights drawn at random; `hf:FOLDER`
names a folder with a `config.json`, whose model starts with the weights in the folder's safetensors
files, if it has any. Nothing is ever fetched from a network.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.documents import parse_json
from hpc_lpm.errors import InputError, closest
from hpc_lpm.files import read_text
from hpc_lpm.models.layered import LayeredModel

CONFIGURATION = "config.json"
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_OTHER_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5")
_NAMED_AT_MOST = 3
_EXAMPLE_SAMPLES = 2


@dataclass(frozen=True)
class Task:
    """What a model is for: the data that it takes, and how it is called with one tensor.

    `mapping` is the table of transformers that has the model's class for each `model_type`.
    """

    name: str
    data: str
    mapping: str
    arguments: Callable[[Tensor], dict[str, Tensor]]


TASKS = (
    Task(
        "sequence to sequence",
        "text",
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        lambda ids: {"input_ids": ids, "decoder_input_ids": ids},
    ),
    Task("masked LM", "text", "MODEL_FOR_MASKED_LM_MAPPING_NAMES", lambda ids: {"input_ids": ids}),
    Task("causal LM", "text", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", lambda ids: {"input_ids": ids}),
    Task(
        "image classification",
        "image",
        "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        lambda images: {"pixel_values": images},
    ),
)
"""The kinds of models that can be trained here; of several that fit a configuration which names no
class, the first."""


def transformers_model(shape: DataShape, path: Path) -> LayeredModel:
    """Build the model that the configuration at `path` describes as a chain of layers.

    Its loss is the cross entropy of its logits with the targets: nothing is shifted, since the
    targets of text are the next tokens already.

    Raises:
        InputError: as `build_module` does, or if the model cannot be divided into layers.
    """
    module = build_module(shape, path)
    size = (_EXAMPLE_SAMPLES, *shape.input_shape)
    example = torch.randn(size) if shape.kind == "image" else torch.randint(shape.classes, size)
    # Imported here, because torch.export takes a while to import.
    from hpc_lpm.models.capture import capture_model

    return capture_model(module, example, name=f"hf:{path}")


def build_module(shape: DataShape, path: Path) -> nn.Module:
    """Build the model that a configuration describes, which maps one tensor to its logits.

    It takes tokens [n, sequence] or images [n, channels, height, width] and returns logits
    [n, sequence, vocabulary] or [n, classes]. A model of sequence to sequence is given the same
    tokens on both sides. Keys and values are not cached; parameters are float32.

    Raises:
        InputError: if transformers is not installed, the configuration cannot be read or is of
            another kind, it does not suit the data, or its weights are not complete.
    """
    transformers = _transformers()
    file = path / CONFIGURATION if path.is_dir() else path
    document = _read(file)
    with _quiet(transformers):
        config = _configuration(transformers, file, document)
        config.use_cache = False
        config.return_dict = True
        config.output_attentions = config.output_hidden_states = False
        built, task = _class_and_task(transformers, file, document, config, shape)
        _check_data(file, config, task, shape)
        module = _with_weights(built, config, path) if _has_weights(path) else _new(built, config)
    module.__class__ = _returning_logits(built, task)
    return module


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise InputError(
            f"models named hf:PATH need the package transformers, which cannot be imported "
            f'({error}): install it with pip install "hpc-lpm[transformers]".'
        ) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        document = parse_json(read_text(file))
    except (OSError, ValueError) as error:
        raise InputError(
            f"hf:{file} cannot be read ({error}): name a configuration of transformers, or a "
            f"folder with a {CONFIGURATION}."
        ) from None
    if not isinstance(document, dict) or "model_type" not in document:
        raise InputError(
            f"hf:{file} has no model_type, accepted is a configuration of transformers: write it "
            "with config.save_pretrained(FOLDER)."
        )
    return document


def _configuration(transformers: Any, file: Path, document: Mapping[str, Any]) -> Any:
    kind = document["model_type"]
    known = list(transformers.CONFIG_MAPPING)
    if kind not in known:
        raise InputError(
            f"hf:{file} has model_type {kind!r}, which transformers {transformers.__version__} "
            f"does not know{closest(str(kind), known)}: name one of its own models; code that "
            "comes with a model is not run."
        )
    values = {name: value for name, value in document.items() if name != "model_type"}
    try:
        return transformers.AutoConfig.for_model(kind, **values)
    except Exception as error:
        raise InputError(
            f"hf:{file} is no valid configuration of a {kind} ({_in_one_line(error)}): correct it."
        ) from error


def _class_and_task(
    transformers: Any, file: Path, document: Mapping[str, Any], config: Any, shape: DataShape
) -> tuple[Any, Task]:
    """Return the class that the configuration names, or else the first for such data."""
    tables = import_module("transformers.models.auto.modeling_auto")
    named = (document.get("architectures") or [None])[0]
    for task in TASKS:
        by_type = getattr(tables, task.mapping)
        classes = by_type.get(config.model_type, ())
        classes = (classes,) if isinstance(classes, str) else tuple(classes)
        if named in classes or (named is None and classes and task.data == shape.kind):
            if task.data != shape.kind:
                raise InputError(
                    f"hf:{file} describes a model for {task.name}, which takes {task.data}, the "
                    f"data set holds {shape.kind} of shape {shape.input_shape}: choose another "
                    "data set or model."
                )
            return getattr(transformers, named or classes[0]), task
    what = f"the class {named}" if named else f"model_type {config.model_type} for {shape.kind}"
    raise InputError(
        f"hf:{file} describes {what}, accepted are models for "
        f"{', '.join(task.name for task in TASKS)}: change its architectures, or write a function "
        "that returns your own module."
    )


def _check_data(file: Path, config: Any, task: Task, shape: DataShape) -> None:
    """Refuse data that the model cannot take, naming the key to change."""
    if task.data == "text":
        vocabulary = config.get_text_config().vocab_size
        positions = getattr(config, "max_position_embeddings", None)
        if vocabulary < shape.vocabulary:
            raise _does_not_fit(
                file, "vocab_size", vocabulary, f"at least {shape.vocabulary}, one a token"
            )
        if positions is not None and positions < shape.input_shape[0]:
            raise _does_not_fit(
                file,
                "max_position_embeddings",
                positions,
                f"at least the {shape.input_shape[0]} tokens of a sample",
            )
        return
    if len(shape.input_shape) != 3:
        raise InputError(
            f"hf:{file} takes images (channels, height, width), the data set's have shape "
            f"{shape.input_shape}: choose another model or data set."
        )
    channels = shape.input_shape[0]
    for key, found, wanted in (
        ("num_channels", getattr(config, "num_channels", channels), channels),
        ("num_labels", config.num_labels, shape.classes),
    ):
        if found != wanted:
            raise _does_not_fit(file, key, found, str(wanted))


def _does_not_fit(file: Path, key: str, found: object, accepted: str) -> InputError:
    return InputError(
        f"hf:{file} has {key} {found}, the data set needs {accepted}: change the configuration or "
        "choose another data set."
    )


def _has_weights(path: Path) -> bool:
    if not path.is_dir():
        return False
    if any((path / name).exists() for name in _SAFETENSORS):
        return True
    for name in _OTHER_WEIGHTS:
        if (path / name).exists():
            raise InputError(
                f"hf:{path} has its weights in {name}, accepted are safetensors: load them with "
                f"transformers and write them with save_pretrained, or name {path / CONFIGURATION} "
                "to start with new weights."
            )
    return False


def _new(built: Any, config: Any) -> nn.Module:
    try:
        module: nn.Module = built(config)
    except Exception as error:
        raise InputError(
            f"a {built.__name__} cannot be built from its configuration ({_in_one_line(error)}): "
            "correct the configuration."
        ) from error
    return module


def _with_weights(built: Any, config: Any, folder: Path) -> nn.Module:
    try:
        module, found = built.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise InputError(
            f"the weights in {folder} cannot be loaded into a {built.__name__} "
            f"({_in_one_line(error)}): restore the files, or name {folder / CONFIGURATION} to "
            "start with new weights."
        ) from error
    lacking = sorted({*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])})
    if lacking:
        raise InputError(
            f"the weights in {folder} have nothing of the right shape for {_some(lacking)} of a "
            f"{built.__name__}: restore the files, or name {folder / CONFIGURATION} to start with "
            "new weights."
        )
    loaded: nn.Module = module
    return loaded.train()


def _returning_logits(built: Any, task: Task) -> type[nn.Module]:
    """Return a subclass that takes one tensor and returns one; a wrapper would change the names."""

    def forward(self: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = built.forward(self, **task.arguments(inputs)).logits
        return logits

    return type(built.__name__, (built,), {"forward": forward, "__module__": built.__module__})


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep what transformers prints while it builds and loads off the terminal."""
    log = transformers.utils.logging
    level, shown = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if shown:
            log.enable_progress_bar()


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
