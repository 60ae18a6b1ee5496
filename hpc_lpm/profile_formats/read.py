"""Read a profile in either of its formats, and replace its link."""

from pathlib import Path

from hpc_lpm.errors import InputError
from hpc_lpm.files import read_text
from hpc_lpm.profile_file import LinkProfile, Profile
from hpc_lpm.profile_formats.pipedream_graph import parse_pipedream_graph
from hpc_lpm.quantities import parse_seconds

LONGEST_SECONDS, LEAST_BYTES_PER_SECOND = 1e9, 1.0
"""Nothing that can be trained takes longer or is slower; within them no plan overflows."""


def read_profile(path: Path) -> Profile:
    """Read a profile: JSON as `hpc-lpm profile` writes it, or PipeDream's `graph.txt`.

    A file is read as JSON if its name ends with `.json` or it begins with a brace. The model of a
    graph is named after its file (`vgg16.graph.txt`) or, if that is called `graph.txt` as
    PipeDream's own files are, after its folder.

    Raises:
        InputError: if the file cannot be read, does not follow its format, or has times and speeds
            beyond anything real.
    """
    profile = _read(path)
    for layer in profile.layers:
        backward = layer.split_backward_seconds or layer.backward_seconds
        if max(layer.forward_seconds, backward) > LONGEST_SECONDS:
            raise InputError(
                f"profile {path} has a pass of more than {LONGEST_SECONDS:g} seconds in layer "
                f"{layer.name}: make it again."
            )
    for link in (profile.link, *profile.links):
        slow = link.bandwidth_bytes_per_second < LEAST_BYTES_PER_SECOND
        if slow or link.latency_seconds > LONGEST_SECONDS:
            raise InputError(
                f"profile {path} has a link of {link.bandwidth_bytes_per_second:g} bytes a second "
                f"and a latency of {link.latency_seconds:g} seconds, accepted are at least "
                f"{LEAST_BYTES_PER_SECOND:g} and at most {LONGEST_SECONDS:g}: make it again."
            )
    return profile


def _read(path: Path) -> Profile:
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError):
        return Profile.read(path)  # raises an error that says what is wrong
    if path.suffix == ".json" or text.lstrip().startswith(("{", "[{")):
        return Profile.read(path)
    return parse_pipedream_graph(text, model=_model_name(path), where=str(path))


def latency_of(option: str, latency: str | float | None) -> float | None:
    """Return a latency in seconds, which may be a text such as `50us`.

    Raises:
        InputError: if it is no time.
    """
    if not isinstance(latency, str):
        return latency
    try:
        return float(parse_seconds(latency))
    except ValueError:
        raise InputError(
            f"{option} is {latency!r}, accepted are seconds from 0, or a time such as 50us."
        ) from None


def with_link(
    profile: Profile,
    latency_seconds: float | None = None,
    bandwidth_bytes_per_second: float | None = None,
) -> Profile:
    """Return the profile with its link's latency and bandwidth replaced where a number is given.

    Raises:
        InputError: if one of the numbers is out of range; the message names the option.
    """
    if latency_seconds is None and bandwidth_bytes_per_second is None:
        return profile
    latency, bandwidth = latency_seconds, bandwidth_bytes_per_second
    if latency is not None and not 0 <= latency <= LONGEST_SECONDS:
        raise InputError(
            f"--latency is {latency}, accepted are seconds from 0 to {LONGEST_SECONDS:g}."
        )
    if bandwidth is not None and not LEAST_BYTES_PER_SECOND <= bandwidth < float("inf"):
        raise InputError(
            f"--bandwidth is {bandwidth}, accepted are bytes a second from "
            f"{LEAST_BYTES_PER_SECOND:g}."
        )
    link = LinkProfile(
        latency_seconds=profile.link.latency_seconds if latency is None else latency,
        bandwidth_bytes_per_second=(
            profile.link.bandwidth_bytes_per_second if bandwidth is None else bandwidth
        ),
        overlap=profile.link.overlap,
    )
    before = profile.environment.get("link", "of the profile")
    given = {"latency": latency, "bandwidth": bandwidth}
    source = ", ".join(f"{name} {before if v is None else 'given'}" for name, v in given.items())
    if None not in given.values():
        source = "given"
    environment = {**profile.environment, "link": source}
    return profile.model_copy(update={"link": link, "environment": environment})


def _model_name(path: Path) -> str:
    name = path.name.removesuffix(".txt").removesuffix(".graph")
    return path.resolve().parent.name if name == "graph" else name
