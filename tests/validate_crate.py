"""Judges an RO-Crate with the profiles' own validator, without a network.

Run by the validator's own Python, since its packages cannot be installed beside the toolkit's:

    .venv/crate-validator/bin/python tests/validate_crate.py FOLDER PROFILE ...

It prints a JSON object that maps each profile to the required things that are wrong.
The validator wants the definition of RO-Crate 1.1's terms from the web; it finds it in its cache,
put there from the copy that ro-crate-py 0.15 holds.
"""

import importlib.resources
import json
import sys
import tempfile
from pathlib import Path

from requests import PreparedRequest, Request
from requests_cache import CachedResponse, CachedSession
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def fill_cache(path: Path) -> None:
    """Write the definition of the terms where the validator looks for what it has fetched."""
    text = importlib.resources.files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes()
    if json.loads(text)["@id"] != CONTEXT:
        raise SystemExit("validate_crate: the copy of the terms is not that of RO-Crate 1.1.")
    session = CachedSession(str(path), backend="sqlite", expire_after=-1)
    request: PreparedRequest = Request("GET", CONTEXT).prepare()
    headers = {"Content-Type": "application/ld+json"}
    response = CachedResponse(content=text, status_code=200, url=CONTEXT, headers=headers)
    session.cache.save_response(response, session.cache.create_key(request), expires=None)


def complaints(folder: Path, profile: str, cache: Path) -> list[str]:
    """Return what the validator finds wrong."""
    settings = ValidationSettings(
        rocrate_uri=folder,
        profile_identifier=profile,
        requirement_severity=Severity.REQUIRED,
        offline=True,
        cache_path=cache,
    )
    result = services.validate(settings)
    return sorted(
        {
            f"{issue.check.identifier} {issue.violatingEntity or ''}: {issue.message}"
            for issue in result.get_issues(Severity.REQUIRED)
        }
    )


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    profiles = sys.argv[2:]
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "http"
        fill_cache(cache)
        # The validator takes a folder with a space in its path for one without a crate.
        crate = Path(scratch) / "crate"
        crate.symlink_to(folder)
        found = {name: complaints(crate, name, cache) for name in profiles}
    json.dump(found, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
