"""Files that tell if they were changed after they had been written, by whomever or a bad disk."""

import hashlib
import json
from typing import Self

from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile

_SEAL = "content_sha256"


class SealedFile(VersionedFile):
    """A versioned file that is written with the hash of its content.

    Files of earlier releases have none, and are read as they are.
    """

    content_sha256: str | None = None

    @classmethod
    def from_document(cls, document: object, where: str) -> Self:
        """Validate a parsed document; `where` names it in errors.

        Raises:
            InputError: as for any file, or if the document was changed after it had been sealed.
        """
        found = super().from_document(document, where)
        if (
            isinstance(document, dict)
            and found.content_sha256 is not None
            and found.content_sha256 != _content_sha256(document)
        ):
            raise found.changed_after(where)
        return found

    def changed_after(self, where: str) -> InputError:
        """Return the error to raise of a file that is not what was written."""
        return InputError(
            f"{self.kind} {where} was changed after it had been written: restore the file, or make "
            "it again."
        )

    def sealed(self) -> Self:
        """Return the same with the hash of its content."""
        return self.model_copy(update={_SEAL: _content_sha256(json.loads(self.model_dump_json()))})

    def text(self) -> str:
        """Return what `write` writes: the sealed file."""
        return VersionedFile.text(self.sealed())


def _content_sha256(document: dict[str, object]) -> str:
    """Return the hash of a document, in which the order of keys and spaces do not count."""
    content = {name: value for name, value in document.items() if name != _SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
