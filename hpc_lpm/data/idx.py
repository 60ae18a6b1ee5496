"""Reader of the IDX format, in which MNIST and its relatives are published.

A file consists of two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each
dimension as a big-endian 32-bit integer, and the values. It is compressed with gzip.
"""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from hpc_lpm.errors import InputError

_UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read a gzip-compressed IDX file of unsigned bytes into a uint8 tensor.

    Raises:
        InputError: if the file cannot be read or decompressed, is not in this format, has another
            number of dimensions, or holds more or fewer values than its header says.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read()
    except EOFError:
        raise InputError(f"IDX file {path} is truncated: fetch it again.") from None
    except (OSError, zlib.error) as error:
        raise InputError(
            f"IDX file {path} cannot be read as gzip ({error}): fetch it again."
        ) from None
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if content[:4] != magic:
        raise InputError(
            f"IDX file {path} begins with {content[:4].hex() or 'nothing'}, accepted is "
            f"{magic.hex()} (unsigned bytes, {dimensions} dimensions): fetch it again."
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise InputError(f"IDX file {path} ends within its header: fetch it again.")
    sizes = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != prod(sizes):
        raise InputError(
            f"IDX file {path} holds {len(content) - start} values where its header says "
            f"{prod(sizes)}: fetch it again."
        )
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(sizes)
