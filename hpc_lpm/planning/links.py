"""The links between stages as a user gives them."""

from collections.abc import Iterable, Sequence

from hpc_lpm.errors import InputError
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.profile_file import Link, Profile
from hpc_lpm.quantities import parse_seconds

MEASURED = "measured"
_ONE_LINK = "LATENCY:BANDWIDTH in seconds and bytes per second, such as 5e-5:1.25e8 or 50us:1.25e8"


def boundary_links(
    profile: Profile,
    stages: int | None,
    links: str | Sequence[str] | None,
    node_link: str | None,
    devices_per_node: int | None,
) -> tuple[Link, ...] | None:
    """Return the link of each boundary between stages, None where all have the profile's.

    Args:
        profile: whose links are taken for `measured` and inside nodes.
        stages: K, None where it is searched: then all boundaries have the profile's link.
        links: `measured`, or a `LATENCY:BANDWIDTH` for each boundary; commas may separate them.
        node_link: the link between nodes; that inside them is the profile's.
        devices_per_node: how many neighbouring stages share a node.

    Raises:
        InputError: if there are not K - 1 of them, or options exclude each other.
    """
    if stages is None:
        if links is not None or node_link is not None or devices_per_node is not None:
            raise InputError(
                "links between stages are given without --stages, which says how many there are: "
                "give --stages, or leave --links, --node-link and --devices-per-node out."
            )
        return None
    check_nodes_told(node_link, devices_per_node)
    if links is not None and node_link is not None:
        raise InputError(
            "--links and --node-link are both given, accepted is one of them: --links names the "
            "link of every boundary already."
        )
    if node_link is not None and devices_per_node is not None:
        return _between_nodes(profile, stages, link_of("--node-link", node_link), devices_per_node)
    if links is None:
        return None
    if links != MEASURED:
        listed = links.split(",") if isinstance(links, str) else links
        if not isinstance(listed, Iterable):
            raise InputError(
                f"--links is {links!r}, accepted is a list, one {_ONE_LINK}, for each boundary."
            )
        return tuple(link_of("--links", text) for text in listed)
    if len(profile.links) != stages - 1:
        raise InputError(
            f"--links is {MEASURED}, but the profile holds {len(profile.links)} links between "
            f"ranks where {stages - 1} are needed: profile on {stages} ranks."
        )
    return profile.links


def check_nodes_told(node_link: str | None, devices_per_node: int | None) -> None:
    """Check that the link between nodes comes with the devices of a node, and they with it.

    Raises:
        InputError: if one of the two is missing, or a node has no device.
    """
    if (node_link is None) != (devices_per_node is None):
        missing = "--node-link" if node_link is None else "--devices-per-node"
        raise InputError(
            f"{missing} is missing: --node-link and --devices-per-node are accepted together only, "
            "give both or none."
        )
    if devices_per_node is not None and devices_per_node < 1:
        raise InputError(
            f"--devices-per-node is {devices_per_node}, accepted are whole numbers from 1."
        )


def _between_nodes(
    profile: Profile, stages: int, between: Link, devices_per_node: int
) -> tuple[Link, ...]:
    inside = Link(**profile.link.model_dump(exclude={"overlap"}))
    return tuple(
        between if (boundary + 1) % devices_per_node == 0 else inside
        for boundary in range(stages - 1)
    )


def link_of(option: str, text: object) -> Link:
    """Return the link that a text `LATENCY:BANDWIDTH` describes; `option` names it in errors.

    Raises:
        InputError: if it describes none.
    """
    latency, _, bandwidth = text.partition(":") if isinstance(text, str) else ("", "", "")
    try:
        numbers = {
            "latency_seconds": float(parse_seconds(latency)),
            "bandwidth_bytes_per_second": float(bandwidth),
        }
    except ValueError:
        raise InputError(f"{option} has {text!r}, accepted is {_ONE_LINK}.") from None
    (link,) = PlanOptions.checked(links=[numbers]).links or ()
    return link
