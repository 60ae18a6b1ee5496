"""Why a module cannot be captured: the reason, and the line of its code that stands in the way."""

import os
import traceback
from pathlib import Path

import torch

_TOOLKIT = f"{Path(__file__).parents[2]}{os.sep}"
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"


class RefusedError(Exception):
    """A module cannot be captured.

    `reason` completes the sentence "the module ... cannot be captured, since it ..."; `place` is
    the file and line of its code, empty if unknown; `instead` says what to write. `of_export` tells
    that torch.export refuses it, as opposed to what comes before and after.
    """

    def __init__(self, reason: str, instead: str, place: str = "", of_export: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead
        self.place = place
        self.of_export = of_export


def place_of(error: BaseException) -> str:
    """Return the file and line of the last frame that is neither torch's nor the toolkit's."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        frame
        for frame in frames
        if frame.name != "<module>"
        and not frame.filename.startswith((_TORCH, _TOOLKIT, "<"))
        and "contextlib" not in frame.filename
    ]
    return f"{theirs[-1].filename}, line {theirs[-1].lineno}" if theirs else ""
