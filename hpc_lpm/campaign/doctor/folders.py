"""Folders as they are before a campaign made its own."""

from pathlib import Path


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or where it is not there yet the nearest one above it that is."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
