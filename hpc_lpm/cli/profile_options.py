"""What commands that read profiles have in common: their help, the link's options, its display."""

from collections.abc import Sequence
from typing import Annotated

import typer

from hpc_lpm.profile import Link, Profile
from hpc_lpm.profiling.pipedream_graph import ASSUMED_LINK

PROFILE_HELP = "Profile, written by `hpc-lpm profile`, or a graph.txt of PipeDream's profiler."

MOST_NAMED_STAGES = 8

LatencyOption = Annotated[
    float | None,
    typer.Option(
        help="Seconds of latency of the link, in place of the profile's; PipeDream's files have "
        f"none, {ASSUMED_LINK.latency_seconds:g} is assumed for them."
    ),
]
BandwidthOption = Annotated[
    float | None,
    typer.Option(
        help="Bytes a second of the link, in place of the profile's; for PipeDream's files "
        f"{ASSUMED_LINK.bandwidth_bytes_per_second:g} is assumed."
    ),
]


def link_source(profile: Profile) -> str:
    """Return where the numbers of the link come from, such as `measured` or `assumed`."""
    return str(profile.environment.get("link", "of the profile"))


def assumptions(profile: Profile) -> list[str]:
    """Return what an imported profile had to assume besides the link."""
    listed = profile.environment.get("assumptions", [])
    return [str(sentence) for sentence in listed] if isinstance(listed, list) else []


def link_document(profile: Profile) -> dict[str, object]:
    """Return the link as JSON output shows it."""
    return {**profile.link.model_dump(mode="json"), "source": link_source(profile)}


def link_sentence(profile: Profile, links: Sequence[Link] | None = None) -> str:
    """Return the link in words, with the options that replace it where it is assumed.

    `links`, one a boundary, are named with the stages behind which they are.
    """
    if links:
        behind: dict[Link, list[int]] = {}
        for stage, link in enumerate(links):
            behind.setdefault(link, []).append(stage)
        if len(behind) == 1:
            return f"{_words(links[0])} at every boundary"
        return "; ".join(f"{_words(link)} {_behind(stages)}" for link, stages in behind.items())
    source = link_source(profile)
    if "assumed" in source:
        source += ", see --latency and --bandwidth"
    return f"{_words(profile.link)} ({source})"


def _words(link: Link) -> str:
    return (
        f"{link.latency_seconds * 1e6:g} us latency, "
        f"{link.bandwidth_bytes_per_second / 1e9:.4g} GB/s"
    )


def _behind(stages: Sequence[int]) -> str:
    if len(stages) > MOST_NAMED_STAGES:
        return f"behind {len(stages)} stages"
    return f"behind stage {', '.join(map(str, stages))}"
