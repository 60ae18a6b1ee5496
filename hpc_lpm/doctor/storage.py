"""Whether results, cache and temporary files can be written, and how much room there is."""

import os
import shutil
import tempfile
from pathlib import Path

from hpc_lpm.doctor.situation import Finding, Situation, Verdict

NAME = "storage"

SCARCE_BYTES = 2**30
"""A campaign with its traces, or one Horovod build, takes some hundred megabytes."""


def check_storage(situation: Situation) -> Finding:
    """Judge the folders by writing a file into each."""
    folders = {
        "results": situation.folder / "results",
        "temporary files": Path(tempfile.gettempdir()),
        "cache": cache_folder(),
    }
    room: list[str] = []
    for purpose, wanted in folders.items():
        folder = nearest_existing(wanted)
        complaint = _complaint_on_writing(folder)
        if complaint:
            # The cache serves the set-up alone; nothing runs without the other two.
            verdict: Verdict = "warning" if purpose == "cache" else "failed"
            return Finding(
                NAME,
                verdict,
                f"{purpose}: {folder} cannot be written: {complaint}",
                _REMEDIES[purpose],
            )
        free = shutil.disk_usage(folder).free
        if free < SCARCE_BYTES:
            return Finding(
                NAME,
                "warning",
                f"{purpose}: {free / 2**20:.0f} MiB are free in {folder}",
                f"free {SCARCE_BYTES / 2**20:.0f} MiB, or {_REMEDIES[purpose]}",
            )
        room.append(f"{purpose} {free / 2**30:.0f} GiB")
    return Finding(NAME, "ok", f"writable, free: {', '.join(room)}")


_REMEDIES = {
    "results": "start from a folder of yours with room",
    "temporary files": "set TMPDIR to a folder of yours with room",
    "cache": "set HPC_LPM_CACHE to a folder of yours with room",
}


def cache_folder() -> Path:
    """Return the folder that the set-up keeps its builds in, as config/environment does."""
    own = os.environ.get("HPC_LPM_CACHE")
    if own:
        return Path(own)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path("~/.cache").expanduser()) / "hpc-lpm"


def _complaint_on_writing(folder: Path) -> str | None:
    # Permissions tell root nothing about a read-only file system or a full quota: really write.
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hpc-lpm-doctor-") as file:
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or where it is not there yet the nearest one above it that is."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
