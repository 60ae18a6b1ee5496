"""Small files that claim to hold much, or unpack to much, are refused soon and in little memory."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpc_lpm.campaign.config import read_campaign
from hpc_lpm.data.array_pickle import read_array_pickle
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.settings import read_settings
from hpc_lpm.planning.worth.measured import Measurements
from hpc_lpm.profile_file import Profile
from hpc_lpm.profile_formats.read import read_profile
from hpc_lpm.schedules.table import TableSchedule
from tests.fuzz.judging import (
    MOST_BYTES,
    bounded_memory,
    complaint,
    peak_bytes,
    run_reader,
)

_REFUSED_WITHIN_SECONDS = 10.0
_TUPLES_IN_TUPLES = b"K\x01q\0" + b"".join(
    b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60)
)
"""Tuples of two, each of which holds the one before twice: hashing the last takes 2^60 steps."""

PICKLES = {
    "a hash without end": b"\x80\x02}" + _TUPLES_IN_TUPLES + b"K\x01s.",
    "hashes without end": b"\x80\x02}(" + _TUPLES_IN_TUPLES + b"K\x01u.",
    "a literal of them": b"(" + _TUPLES_IN_TUPLES + b"K\x01d.",
    "a name without end": b"\x80\x02}U\x01acnumpy\ndtype\n" + _TUPLES_IN_TUPLES + b"\x85Rs.",
    "many bytes": b"\x80\x05}U\x01a\x96" + (2**35).to_bytes(8, "little") + b"xs.",
    "many bytes of text": b"\x80\x05}U\x01a\x8e" + (2**40).to_bytes(8, "little"),
    "a shape of lists": b"\x80\x02}U\x01acnumpy\nndarray\n(tR(K\0(J\0\xe1\xf5\x05]K\0atcnumpy\n"
    b"dtype\n(U\x02u1tRK\0U\x01xtbs.",
}


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_a_pickle_cannot_keep_its_reader_busy_or_fill_the_memory(content: bytes) -> None:
    refused(lambda: read_array_pickle(content, "it"))


def test_a_pickle_cannot_have_room_made_for_what_it_does_not_hold() -> None:
    before = peak_bytes()
    assert read_array_pickle(b"\x80\x02}r\xff\xff\xff\x7f.", "it") == {}
    assert peak_bytes() - before < MOST_BYTES


def refused(read: Callable[[], object]) -> None:
    before = peak_bytes()
    with bounded_memory():
        outcome = run_reader(read)
    assert complaint(outcome, frozenset({2})) is None, outcome
    assert outcome.seconds < _REFUSED_WITHIN_SECONDS
    assert peak_bytes() - before < MOST_BYTES


def zeros(count: int) -> bytes:
    """Return so many zeros, compressed to a thousandth, in parts that are read as one."""
    return gzip.compress(bytes(2**24)) * (count // 2**24)


def idx(folder: Path) -> Callable[[], object]:
    for part in ("train", "t10k"):
        head = gzip.compress(struct.pack(">4I", 0x803, 2, 8, 8))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(head + zeros(2**31))
        labels = struct.pack(">2I", 0x801, 2) + b"\0\1"
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return lambda: load_dataset(f"idx:{folder}")


def idx_that_claims(folder: Path) -> Callable[[], object]:
    for part in ("train", "t10k"):
        head = struct.pack(">4I", 0x803, *(2**32 - 1,) * 3)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + bytes(100))
        head = struct.pack(">2I", 0x801, 2**32 - 1)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head)
    return lambda: load_dataset(f"idx:{folder}")


def archive(folder: Path) -> Callable[[], object]:
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = 2**31
    head = gzip.compress(member.tobuf())
    (folder / "cifar-10-python.tar.gz").write_bytes(head + zeros(2**31))
    return lambda: load_dataset("cifar10", folder)


def links_in_an_archive(folder: Path) -> Callable[[], object]:
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        for number in range(1, 6):
            member = tarfile.TarInfo(f"cifar-10-batches-py/data_batch_{number}")
            member.type, member.linkname = tarfile.SYMTYPE, f"data_batch_{number}"
            archive.addfile(member)
    return lambda: load_dataset("cifar10", folder)


def npz(folder: Path) -> Callable[[], object]:
    """A file whose array claims 64 GiB and has a few bytes."""
    stream = io.BytesIO()
    head = {"descr": "<f8", "fortran_order": False, "shape": (2**33,)}
    np.lib.format.write_array_header_1_0(stream, head)  # type: ignore[arg-type]
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("x.npy", "y.npy"):
            packed.writestr(name, stream.getvalue() + bytes(100))
    return lambda: load_dataset(f"npz:{folder / 'a.npz'}")


def png(folder: Path) -> Callable[[], object]:
    """Images of 12,000 by 12,000 pixels, which Pillow alone would read."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    side = 12_000
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + 4 * side)) for _ in range(side)) + packer.flush()
    head = struct.pack(">2I5B", side, side, 8, 6, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows)
    content += chunk(b"IEND", b"")
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        (folder / name / "a.png").write_bytes(content)
    return lambda: load_dataset(f"images:{folder},size=8")


def long_field(folder: Path) -> Callable[[], object]:
    (folder / "a.csv").write_text("a,label\n" + "x" * 10**8 + ",1\n")
    return lambda: TableSchedule.read("it", folder / "a.csv")


def long_field_of_measurements(folder: Path) -> Callable[[], object]:
    (folder / "a.csv").write_text('a,label\n"' + "x" * 10**8)
    return lambda: Measurements.read(folder / "a.csv")


def deep_json(folder: Path) -> Callable[[], object]:
    (folder / "a.json").write_text("[" * 10**6)
    return lambda: Profile.read(folder / "a.json")


def deep_settings(folder: Path) -> Callable[[], object]:
    (folder / "a.json").write_text('{"a":' * 900 + "1" + "}" * 900)
    return lambda: read_settings(folder / "a.json")


def long_number(folder: Path) -> Callable[[], object]:
    (folder / "a.json").write_text(json.dumps({"schema_version": "X"}).replace('"X"', "1" * 10**7))
    return lambda: Profile.read(folder / "a.json")


def aliases(folder: Path) -> Callable[[], object]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (folder / "a.yaml").write_text("\n".join(lines))
    return lambda: read_campaign(folder / "a.yaml")


def merges(folder: Path) -> Callable[[], object]:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    (folder / "a.yaml").write_text("\n".join(lines))
    return lambda: read_campaign(folder / "a.yaml")


def long_yaml(folder: Path) -> Callable[[], object]:
    (folder / "a.yaml").write_text("a: [" + "1, " * 10**7)
    return lambda: read_campaign(folder / "a.yaml")


def long_graph(folder: Path) -> Callable[[], object]:
    number = "1e-400000000"
    fields = f"forward_compute_time={number}, backward_compute_time={'9' * 10**6}"
    text = f"node1 -- Conv2d -- {fields}, activation_size=[{'1;' * 10**5}1], parameter_size=1\n"
    (folder / "graph.txt").write_text(text)
    return lambda: read_profile(folder / "graph.txt")


BOMBS = (
    *(idx, idx_that_claims, archive, links_in_an_archive, npz, png, long_field, deep_json),
    *(long_field_of_measurements, deep_settings, long_number, aliases, merges, long_yaml),
    long_graph,
)


@pytest.mark.parametrize("write", BOMBS, ids=lambda write: write.__name__)
def test_a_small_file_does_not_become_large(
    write: Callable[[Path], Callable[[], object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # an unexpected fault leaves a file
    refused(write(tmp_path))
