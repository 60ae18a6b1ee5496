"""The rules that apply to the gradients of a step before the update: log, skip, clip.

Clipping follows `torch.nn.utils.clip_grad_norm_` to the bit, also by the norm over stages: what
stages tell each other are the norms of all parameters, which every stage combines in the order of
the layers, as one device does. How the model is cut changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.settings import TrainSettings

NormsOfStage = list[tuple[torch.dtype, list[float]]]
"""The norms of a stage's gradients by their type, in the order of its parameters."""

GatherFromStages = Callable[[list[NormsOfStage]], list[NormsOfStage]]
"""Returns the norms of all stages, given those of this rank's."""

NormsByType = dict[torch.dtype, Tensor]
"""The norms of several tensors by type of the tensors, in order, each [tensors]."""

WholeNorms = Callable[[Sequence[nn.Parameter], NormsByType], NormsByType]
"""Returns the norms of whole tensors, given those of this rank's shards of such parameters."""


class GradientRules:
    """Applies the rules of a run to the gradients of one rank.

    Args:
        parameters: those that this rank updates, of each stage that it holds, in the order of the
            layers.
        settings: of the run.
        recorder: counts the updates that are skipped, and keeps the norms that are logged.
        gather: returns what all stages give, in order, for what the stages of this rank give
            (collective). None if the rank holds the whole model, or its stage decides for itself.
        whole_norms: if the parameters are this rank's shards, returns the norms of the whole ones
            (collective).
    """

    def __init__(
        self,
        parameters: Sequence[Sequence[nn.Parameter]],
        settings: TrainSettings,
        recorder: Recorder,
        gather: GatherFromStages | None = None,
        whole_norms: WholeNorms | None = None,
    ) -> None:
        self._whole_norms = whole_norms
        self._parameters = parameters
        self._recorder = recorder
        self._largest = settings.clip_norm
        self._by_stage = settings.clip_scope == "stage"
        self._skips = settings.non_finite == "skip"
        self._logged_every = settings.log_norms
        clips_together = self._largest is not None and not self._by_stage
        self._gather = gather if clips_together or self._skips else None

    @property
    def waits(self) -> bool:
        """Whether the rules make a stage wait for all others."""
        return self._gather is not None

    def apply(self) -> bool:
        """Apply the rules to the accumulated gradients; return whether the update is to be made.

        Norms are logged as they are before both.

        It is not where updates are skipped and a gradient, or its norm, is not finite. Stages that
        wait for each other then skip it together.

        Raises:
            TrainingError: if a stage does not come in time.
        """
        logged = self._logged_every and self._recorder.step % self._logged_every == 0
        if self._largest is None and not self._skips and not logged:
            return True
        own = [
            self._norms_of({p: p.grad for p in of_stage if p.grad is not None})
            for of_stage in self._parameters
        ]
        together = _Norms.together(own)
        if logged:
            held = {p: p.detach() for of_stage in self._parameters for p in of_stage}
            self._recorder.add_norms(together.total(), self._norms_of(held).total())
        if self._gather:
            everywhere = self._gather([norms.listed() for norms in own])
            together = _Norms.of_stages(everywhere, together.device)
        if self._skips and not torch.isfinite(together.total()):
            self._recorder.skip_update()
            return False
        if self._largest is not None:
            for of_stage, norms in zip(self._parameters, own, strict=True):
                total = (norms if self._by_stage else together).total()
                clip_grads_with_norm_(of_stage, self._largest, total)
        return True

    def _norms_of(self, tensors: Mapping[nn.Parameter, Tensor]) -> "_Norms":
        own = _Norms.of(tensors.values())
        return own.of_whole(list(tensors), self._whole_norms) if self._whole_norms else own


class _Norms:
    """The norms of several tensors."""

    def __init__(self, by_type: NormsByType) -> None:
        self._by_type = by_type

    @classmethod
    @torch.no_grad()
    def of(cls, tensors: Iterable[Tensor]) -> "_Norms":
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor)
        # What `clip_grad_norm_` calls: one operation for many tensors.
        return cls({kind: torch.stack(torch._foreach_norm(of)) for kind, of in by_type.items()})

    def of_whole(self, parameters: Sequence[nn.Parameter], whole: WholeNorms) -> "_Norms":
        """Return the norms of the parameters that these are shards of."""
        return _Norms(whole(parameters, self._by_type))

    @classmethod
    def together(cls, parts: Iterable["_Norms"]) -> "_Norms":
        """Return the norms of several parts of a model, in order."""
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for part in parts:
            for kind, norms in part._by_type.items():
                by_type.setdefault(kind, []).append(norms)
        return cls({kind: torch.cat(of) for kind, of in by_type.items()})

    @classmethod
    def of_stages(cls, stages: Iterable[NormsOfStage], device: torch.device | None) -> "_Norms":
        """Return the norms that stages have listed, in order, on a device."""
        everywhere: dict[torch.dtype, list[float]] = {}
        for of_stage in stages:
            for kind, norms in of_stage:
                everywhere.setdefault(kind, []).extend(norms)
        return cls(
            {
                kind: torch.tensor(norms, dtype=kind.to_real(), device=device)
                for kind, norms in everywhere.items()
            }
        )

    def listed(self) -> NormsOfStage:
        """Return the norms as numbers, which can be sent."""
        return [(kind, norms.tolist()) for kind, norms in self._by_type.items()]

    @property
    def device(self) -> torch.device | None:
        """Where the norms are, None if there are none."""
        return next((norms.device for norms in self._by_type.values()), None)

    def total(self) -> Tensor:
        """Return the norm of all tensors together, a scalar tensor; 0 if there is none."""
        if not self._by_type:
            return torch.zeros(())
        total: Tensor = torch.linalg.vector_norm(torch.cat(list(self._by_type.values())))
        return total
