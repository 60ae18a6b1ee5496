"""`manifest.json`, the last file of a checkpoint to be written: what there is, and its hashes."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from hpc_lpm.engine.history import History
from hpc_lpm.files import VersionedFile

MANIFEST = "manifest.json"


class CheckpointFile(BaseModel):
    """One file of a checkpoint and what it is about: layers [start, stop) of one replica."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    rank: int
    replica: int
    start: int
    stop: int
    size_bytes: int
    sha256: str


class Manifest(VersionedFile):
    """A checkpoint's table of contents.

    `settings` are those that a run must share to go on from here, under dotted names.
    """

    kind: ClassVar[str] = "checkpoint manifest"

    history: History
    settings: dict[str, object]
    ranks: int
    replicas: int
    cuts: list[int] = Field(description="the K+1 cut positions; [0, L] without a partition")
    files: list[CheckpointFile]
