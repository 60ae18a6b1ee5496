"""Channels between ranks that one process plays."""

from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.pipeline.transport.channel import (
    Circumstances,
    NeighbourChannels,
    RankChannels,
    StageChannels,
    TiedChannels,
)
from hpc_lpm.engine.pipeline.transport.local import LocalChannel
from hpc_lpm.engine.topology import StagePlace


def open_played_channels(circumstances: Circumstances) -> RankChannels:
    """Return the channels of one rank within this process."""
    job, topology = circumstances.job, circumstances.topology
    assert isinstance(job, PlayedJob)
    board = job.board

    def channel(peer: int | None, leaving: object, coming: object) -> LocalChannel:
        """Return a channel by what its messages in each direction are about."""
        return LocalChannel(
            board.boxes[job.rank, peer, leaving],
            board.boxes[peer, job.rank, coming],
            board.turns.wait_for,
            counted=peer != job.rank,
        )

    def to_neighbours(place: StagePlace, kind: str) -> NeighbourChannels:
        # Named by the stage above the boundary.
        above, below = place.stage - 1, place.stage
        previous, following = place.previous_rank, place.next_rank
        return NeighbourChannels(
            from_previous=channel(previous, None, (kind, "activation", above)),
            to_previous=channel(previous, (kind, "gradient", above), None),
            from_next=channel(following, None, (kind, "gradient", below)),
            to_next=channel(following, (kind, "activation", below), None),
        )

    def tied(device: int, kind: str) -> LocalChannel:
        return channel(topology.rank_of(device), kind, kind)

    return RankChannels(
        [
            StageChannels(to_neighbours(place, "agreed"), to_neighbours(place, "described"))
            for place in topology.places
        ],
        {
            device: TiedChannels(tied(device, "tied gradient"), tied(device, "tied weights"))
            for device in circumstances.tied_to(topology.device)
        },
    )
