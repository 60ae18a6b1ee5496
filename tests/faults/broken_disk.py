"""A file system of its own that can be made to fail while it is written to, as disks do."""

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MEGABYTES = 64
_SHUT_DOWN, _WITHOUT_FLUSH = 0x8004587D, 2
"""The request of ext4 after which it answers everything with an input/output error."""


class BrokenDisk:
    """An ext4 in a file, mounted at a folder, which root alone can do."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.folder = folder
        self._image = image

    def mount(self) -> None:
        """Mount it; what it holds is checked first."""
        subprocess.run(["e2fsck", "-p", str(self._image)], capture_output=True, check=False)
        options = ["-o", "loop,errors=remount-ro"]
        subprocess.run(["mount", *options, str(self._image), str(self.folder)], check=True)

    def unmount(self) -> None:
        """Unmount it, whoever still uses it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)
        deadline = time.monotonic() + 60
        while self._is_in_a_loop():
            assert time.monotonic() < deadline, f"{self.folder} is still in use"
            time.sleep(0.05)

    def make_read_only(self) -> None:
        """Let the kernel find an error, after which it takes the file system for read-only."""
        device = self.folder.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1")

    def vanish(self) -> None:
        """Let it answer nothing any more but errors."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUT_DOWN, struct.pack("I", _WITHOUT_FLUSH))
        finally:
            os.close(folder)

    def _is_in_a_loop(self) -> bool:
        done = subprocess.run(
            ["losetup", "--associated", str(self._image)],
            capture_output=True,
            text=True,
            check=False,
        )
        return bool(done.stdout.strip())


@contextmanager
def broken_disk(parent: Path) -> Iterator[BrokenDisk]:
    """Make one below a folder, and take it away in the end."""
    image, folder = parent / "disk.img", parent / "disk"
    folder.mkdir()
    with image.open("wb") as stream:
        stream.truncate(_MEGABYTES * 2**20)
    disk = BrokenDisk(image, folder)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
        disk.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield disk
    finally:
        disk.unmount()
