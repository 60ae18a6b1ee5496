"""Memory that Python has freed and that the C library keeps for later."""

import ctypes


def return_free_memory() -> None:
    """Give free memory back to the system, where the C library can do so."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
