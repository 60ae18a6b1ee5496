"""What one check found."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """A check's verdict, what it saw, and what to do about it (empty where all is well)."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
