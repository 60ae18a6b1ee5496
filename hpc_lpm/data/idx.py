"""Reader of the IDX format, in which MNIST and its relatives are published.

A file consists of two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each
dimension as a big-endian 32-bit integer, and the values. It may be compressed with gzip.
"""

import gzip
import struct
import zlib
from io import BufferedIOBase
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from hpc_lpm.data.locations import require_file
from hpc_lpm.errors import InputError

_UNSIGNED_BYTE = 8
_GZIP = b"\x1f\x8b"
_COUNTED_BEYOND = 2**20
"""So much is read at most of what a header does not tell of: little can unpack to very much."""


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes, compressed with gzip or not, into a uint8 tensor.

    Raises:
        InputError: if the file cannot be read or decompressed, is not in this format, has another
            number of dimensions, or holds more or fewer values than its header says.
    """
    sizes = read_idx_sizes(path, dimensions)
    start, values = _header_bytes(dimensions), prod(sizes)
    most = values + _COUNTED_BEYOND
    content = _read(path, start + most)
    if len(content) - start != values:
        found = f"{most} or more" if len(content) - start == most else len(content) - start
        raise InputError(
            f"IDX file {path} holds {found} values where its header says {values}: fetch it again."
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].view(sizes)


def read_idx_sizes(path: Path, dimensions: int) -> tuple[int, ...]:
    """Read the sizes that the head of an IDX file states, without reading its values.

    Raises:
        InputError: if the head cannot be read or is not in this format.
    """
    return _sizes(_read(path, _header_bytes(dimensions)), path, dimensions)


def _header_bytes(dimensions: int) -> int:
    return 4 + 4 * dimensions


def _sizes(content: bytes, path: Path, dimensions: int) -> tuple[int, ...]:
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if content[:4] != magic:
        raise InputError(
            f"IDX file {path} begins with {content[:4].hex() or 'nothing'}, accepted is "
            f"{magic.hex()} (unsigned bytes, {dimensions} dimensions): fetch it again."
        )
    if len(content) < _header_bytes(dimensions):
        raise InputError(f"IDX file {path} ends within its header: fetch it again.")
    return struct.unpack(f">{dimensions}I", content[4 : _header_bytes(dimensions)])


def _read(path: Path, size: int) -> bytes:
    """Read the first bytes of a file, whether it is compressed or not."""
    require_file(path, "IDX file")
    try:
        with path.open("rb") as plain:
            compressed = plain.read(2) == _GZIP  # whatever its name says
        with gzip.open(path) if compressed else path.open("rb") as stream:
            return _read_up_to(size, stream)
    except EOFError:
        raise InputError(f"IDX file {path} is truncated: fetch it again.") from None
    except (OSError, zlib.error) as error:
        raise InputError(
            f"IDX file {path} cannot be read{' as gzip' if compressed else ''} ({error}): fetch it "
            "again."
        ) from None


def _read_up_to(size: int, stream: BufferedIOBase) -> bytes:
    """Read so many bytes, without making room for those that are claimed but not there."""
    content = bytearray()
    while part := stream.read(min(size - len(content), _COUNTED_BEYOND)):
        content += part
    return bytes(content)
