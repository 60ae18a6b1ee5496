"""Output that nobody reads, or that cannot be written, ends no command that has work to finish."""

import errno
import os
import sys
from collections.abc import Callable
from typing import IO, Any

from hpc_lpm.errors import InputError


class LossyStream:
    """A text stream that drops what cannot be written, instead of raising.

    Args:
        stream: where text goes as long as it can be written.
        any_fault: whether every fault is passed over, such as a full disk; otherwise only that the
            reader has gone.
    """

    def __init__(self, stream: IO[str], *, any_fault: bool) -> None:
        self._stream = stream
        self._any_fault = any_fault

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the stream has."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write lines, or drop them."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush what was written, or drop it."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self._discard_all()
            if error.errno != errno.EPIPE and not self._any_fault:
                raise InputError(
                    f"what this command prints cannot be written ({error.strerror}): send it "
                    "elsewhere."
                ) from None

    def _discard_all(self) -> None:
        """Send everything to nowhere, what is still in buffers too, which exiting flushes."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def make_output_lossy(*, any_fault: bool) -> None:
    """Let this process go on when its output cannot be written (see `LossyStream`)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # for terminals that know ASCII alone
            setattr(sys, name, LossyStream(stream, any_fault=any_fault))
