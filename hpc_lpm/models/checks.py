"""Checks of what a model is asked for, each failing with one sentence that says what to do."""

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError


def require_images(model: str, shape: DataShape, least_size: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width) of the data.

    Raises:
        InputError: if the data are not images or either side is below `least_size` pixels.
    """
    if shape.kind != "image" or len(shape.input_shape) != 3:
        raise InputError(
            f"{model} takes images (channels, height, width), the data set holds {shape.kind} of "
            f"shape {shape.input_shape}: choose another model or data set."
        )
    channels, height, width = shape.input_shape
    if min(height, width) < least_size:
        raise InputError(
            f"{model} takes images of at least {least_size}x{least_size} pixels, the data set's "
            f"have {height}x{width}: choose a larger image size."
        )
    return channels, height, width


def require_at_least(model: str, option: str, value: int, least: int) -> None:
    """Check a whole-number option.

    Raises:
        InputError: if `value` is below `least`.
    """
    if value < least:
        raise InputError(
            f"option {option!r} of {model} is {value}, accepted are whole numbers from {least}."
        )
