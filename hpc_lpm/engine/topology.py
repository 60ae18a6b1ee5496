"""Which stage and which replica a rank is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PipelineTopology:
    """One rank of K stages with R replicas each: rank = stage * R + replica.

    That is DeepSpeed's PipeDataParallelTopology, as its PipelineModule builds it from the number of
    stages and of ranks: replicas of a stage are neighbouring ranks.
    """

    rank: int
    stages: int
    replicas: int

    @property
    def stage(self) -> int:
        """The stage that this rank holds, from 0."""
        return self.rank // self.replicas

    @property
    def replica(self) -> int:
        """Which of the stage's replicas this rank is, from 0."""
        return self.rank % self.replicas

    def rank_of(self, stage: int) -> int:
        """The rank that holds a stage in the same replica."""
        return stage * self.replicas + self.replica

    @property
    def previous_rank(self) -> int:
        """The rank that holds the stage before, in the same replica; below 0 before the first."""
        return self.rank - self.replicas

    @property
    def next_rank(self) -> int:
        """The rank that holds the stage after, in the same replica; too large after the last."""
        return self.rank + self.replicas
