"""A file that cannot be read as text is named with what is wrong in it and what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_lpm.campaign.config import read_campaign
from hpc_lpm.cluster.site import FILE, Site
from hpc_lpm.engine.settings import read_settings
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.worth.measured import Measurements
from hpc_lpm.profile_file import Profile


def read_site(path: Path) -> object:
    return Site.read(path.parents[1])


READERS: dict[str, Callable[[Path], object]] = {
    "campaign.yaml": read_campaign,
    "campaign.json": read_campaign,
    str(FILE): read_site,
    "settings.json": read_settings,
    "plan.json": Plan.read,
    "profile.json": Profile.read,
    "efficiency.csv": Measurements.read,
}


@pytest.mark.parametrize("name", READERS)
def test_bytes_that_are_no_text_are_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(InputError) as caught:
        READERS[name](path)
    assert str(path) in str(caught.value)
    assert "byte 6 of it, 0xff, is no UTF-8" in str(caught.value)
    assert "save it in UTF-8, or name another file" in str(caught.value)
    assert "codec" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in READERS if name != "settings.json"])
def test_a_folder_in_place_of_a_file_is_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot be read as .*: mend it, or name another file"):
        READERS[name](tmp_path / name)
