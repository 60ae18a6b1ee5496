"""What commands that read profiles share: help texts, options of the link, how it is shown."""

from collections.abc import Sequence
from typing import Annotated

import typer

from hpc_lpm.profile_file import Link, Profile
from hpc_lpm.profile_formats.pipedream_graph import ASSUMED_LINK

PROFILE_HELP = "Profile, written by `hpc-lpm profile`, or a graph.txt of PipeDream's profiler."

MOST_NAMED_STAGES = 8

LatencyOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Latency of the link in seconds or as 50us, instead of the profile's; for PipeDream's "
        f"files {ASSUMED_LINK.latency_seconds:g} is assumed.",
    ),
]
BandwidthOption = Annotated[
    float | None,
    typer.Option(
        help="Bandwidth of the link in bytes per second, instead of the profile's; for PipeDream's "
        f"files {ASSUMED_LINK.bandwidth_bytes_per_second:g} is assumed."
    ),
]


def link_source(profile: Profile) -> str:
    """Return where the link's numbers come from, such as `measured` or `assumed`."""
    return str(profile.environment.get("link", "of the profile"))


def assumptions(profile: Profile) -> list[str]:
    """Return the sentences that say what an imported profile assumes besides the link."""
    listed = profile.environment.get("assumptions", [])
    return [str(sentence) for sentence in listed] if isinstance(listed, list) else []


def link_document(profile: Profile) -> dict[str, object]:
    """Return the link for JSON output."""
    return {**profile.link.model_dump(mode="json"), "source": link_source(profile)}


def link_sentence(profile: Profile, links: Sequence[Link] | None = None) -> str:
    """Describe the link in words, with the options that replace it if it is assumed.

    `links`, if given, has one link for each boundary; each is described with the stages before it.
    """
    if links:
        behind: dict[Link, list[int]] = {}
        for stage, link in enumerate(links):
            behind.setdefault(link, []).append(stage)
        if len(behind) == 1:
            return f"{link_words(links[0])} at every boundary"
        return "; ".join(f"{link_words(link)} {_behind(stages)}" for link, stages in behind.items())
    source = link_source(profile)
    if "assumed" in source:
        source += ", see --latency and --bandwidth"
    return f"{link_words(profile.link)} ({source})"


def link_words(link: Link) -> str:
    """Describe a link by its latency and its bandwidth."""
    return (
        f"{link.latency_seconds * 1e6:g} us latency, "
        f"{link.bandwidth_bytes_per_second / 1e9:.4g} GB/s"
    )


def _behind(stages: Sequence[int]) -> str:
    if len(stages) > MOST_NAMED_STAGES:
        return f"behind {len(stages)} stages"
    return f"behind stage {', '.join(map(str, stages))}"
