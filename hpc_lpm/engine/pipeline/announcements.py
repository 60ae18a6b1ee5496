"""Announces to the channels of a stage what it will receive, a step at a time, before it needs it.

Channels post receives for what has been announced, so a message that was announced must come: gloo
and NCCL cannot cancel a receive.
"""

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.pipeline.boundary import LOSS, StageBoundaries, TensorSpec
from hpc_lpm.engine.pipeline.transport.channel import Channel, NeighbourChannels
from hpc_lpm.engine.topology import StagePlace


class Announcements:
    """Announces what crosses the boundaries of a stage in whole steps, and in an evaluation.

    Args:
        boundaries: what crosses.
        channels: to and from the neighbours.
        place: of the stage.
    """

    def __init__(
        self, boundaries: StageBoundaries, channels: NeighbourChannels, place: StagePlace
    ) -> None:
        self._boundaries = boundaries
        self._channels = channels
        self._place = place

    def announce(self, batch: MicroBatches, *, training: bool) -> None:
        """Announce all messages of one optimizer step, or of an evaluation."""
        if not self._place.is_first:
            self._activations(batch, training=training)
        if training and not self._place.is_last:
            self._gradients(batch)

    def _activations(self, batches: MicroBatches, *, training: bool) -> None:
        boundary, channel = self._boundaries.incoming, self._channels.from_previous
        for n in range(len(batches)):
            spec = boundary.agreed(training=training, samples=batches.size(n))
            _expect(channel, spec.messages() if spec else ())

    def _gradients(self, batch: MicroBatches) -> None:
        boundary, channel = self._boundaries.outgoing, self._channels.from_next
        for n in range(len(batch)):
            spec = boundary.agreed(training=True, samples=batch.size(n))
            if spec is not None:
                loss = (LOSS,) if n == len(batch) - 1 else ()
                _expect(channel, (*spec.gradient_messages(), *loss))


def _expect(channel: Channel, message: tuple[TensorSpec, ...]) -> None:
    # What only the messages themselves tell cannot be announced; of nothing, nothing is sent.
    if message:
        channel.expect([message])
