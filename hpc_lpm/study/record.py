"""`.hpc-lpm.json`: which version of the toolkit made which file of a study, and where it is."""

import hashlib
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from hpc_lpm import __version__
from hpc_lpm.files import VersionedFile

RECORD = ".hpc-lpm.json"


class MadeFile(BaseModel):
    """A file as it was made: by which version of the toolkit, and the hash of what it wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    sha256: str


class StudyRecord(VersionedFile):
    """The record of a study.

    `programs` is the folder of the programs, snakemake among them, of the environment that `hpc-lpm
    init` was called from last; slurm/campaign.sbatch looks there. `files` are named by their paths
    in the study.
    """

    kind: ClassVar[str] = "record of a study"

    programs: str
    files: dict[str, MadeFile]

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """Return the record of a study, None if it has none.

        Raises:
            InputError: if the record is damaged.
        """
        path = folder / RECORD
        return cls.read(path) if path.exists() else None

    @classmethod
    def after(cls, earlier: "StudyRecord | None", made: Mapping[str, str]) -> Self:
        """Return the record of a study into which this version has just written files.

        Args:
            earlier: the record of what has been there.
            made: the text of each new file, by its path.
        """
        files = dict(earlier.files) if earlier else {}
        files |= {
            name: MadeFile(version=__version__, sha256=digest(text)) for name, text in made.items()
        }
        return cls(programs=sysconfig.get_path("scripts"), files=files)

    @property
    def versions(self) -> list[str]:
        """The versions that made the files, without repetition."""
        return list(dict.fromkeys(made.version for made in self.files.values()))

    def made_this(self, name: str, text: str) -> bool:
        """Tell if a file was made with that very text, whatever has become of it since."""
        return name in self.files and self.files[name].sha256 == digest(text)


def digest(text: str) -> str:
    """Return the hash by which texts are told apart."""
    return hashlib.sha256(text.encode()).hexdigest()
