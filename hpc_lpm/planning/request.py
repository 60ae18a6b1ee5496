"""What is asked of a plan, by the command and by `hpc_lpm.plan`, and the plan that answers it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from hpc_lpm.errors import InputError
from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.cut_names import CUT_ONLY_AT, CUTS
from hpc_lpm.planning.devices.asked import AskedSearch, objective_of
from hpc_lpm.planning.devices.candidates import THROUGHPUT, Candidate, DeviceSearch
from hpc_lpm.planning.links import boundary_links
from hpc_lpm.planning.lists import memory_limit_of, names_of, speeds_of
from hpc_lpm.planning.options import MOST_DEVICES, PlanOptions, asked_optimizer
from hpc_lpm.planning.own_split import OWN, check_within_limits
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.planners.registry import DEFAULT_PLANNER, planner_named
from hpc_lpm.planning.pricing import price_plan, searched_cuts
from hpc_lpm.planning.worth.expected import StepWorth, expected_steps
from hpc_lpm.planning.worth.lag import Lag
from hpc_lpm.planning.worth.measured import check_recipe, measurements
from hpc_lpm.profile_file import Profile
from hpc_lpm.profile_formats.read import latency_of, read_profile, with_link
from hpc_lpm.recipes import NO_RECIPE
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, schedule_named


@dataclass(frozen=True)
class ProfileAndHash:
    """A profile, and the SHA-256 of its file, by which a plan knows it."""

    profile: Profile
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a profile in either format.

        Raises:
            InputError: as `read_profile`.
        """
        profile = read_profile(path)
        return cls(profile, hashlib.sha256(path.read_bytes()).hexdigest())

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """Return a profile with the hash of the file that its `write` writes."""
        return cls(profile, hashlib.sha256(profile.text().encode()).hexdigest())


@dataclass(frozen=True)
class Answer:
    """A plan, what it was priced by, and the search over devices that it came from, if any."""

    plan: Plan
    model: CostModel
    blocks: Blocks
    search: DeviceSearch | None = None


@dataclass(frozen=True)
class PlanRequest:
    """A request that has been checked as far as can be without a search.

    Attributes:
        blocks: the profiles, each with the layers merged that may not be cut apart.
        hashes: those of their files.
        stages: K; None where it is searched.
        devices: how many are shared among stages and replicas, where K is searched.
        global_batch: the samples of an optimizer step on all devices, likewise.
        cuts: the user's own, empty if a planner chooses them.
        planner: the planner's name.
        options: the plan's.
        search: how devices are searched, if they are.
    """

    blocks: tuple[Blocks, ...]
    hashes: tuple[str, ...]
    stages: int | None
    devices: int | None
    global_batch: int | None
    cuts: tuple[int | str, ...]
    planner: str
    options: PlanOptions
    search: AskedSearch

    @classmethod
    def of(
        cls,
        profiles: Sequence[ProfileAndHash],
        *,
        stages: int | None = None,
        devices: int | None = None,
        global_batch: int | None = None,
        cuts: str | Sequence[int | str] | None = None,
        cut_only_at: str | Sequence[str] | None = None,
        planner: str | None = None,
        schedule: str | None = None,
        chunks: int | None = None,
        tolerance: float = 0.02,
        memory_limit: int | str | Sequence[int | str] | None = None,
        lead: int | None = None,
        micro_batches: int | None = None,
        weights: str | None = None,
        optimizer: str = "momentum",
        prediction_rule: str | None = None,
        recipe: str = NO_RECIPE,
        objective: str = THROUGHPUT,
        efficiency: Path | str | None = None,
        overlap: bool | None = None,
        speeds: str | Sequence[float] | None = None,
        latency: str | float | None = None,
        bandwidth: float | None = None,
        links: str | Sequence[str] | None = None,
        node_link: str | None = None,
        devices_per_node: int | None = None,
    ) -> Self:
        """Check what is asked for; the arguments are those of `hpc_lpm.plan`.

        Raises:
            InputError: if a value is not accepted, or two exclude each other; the sentence names
                options as the command line spells them.
        """
        own = names_of(CUTS, cuts)
        runs = schedule_named(schedule or DEFAULT_SCHEDULE).with_chunks(chunks)
        if own:
            stages = _devices_of(own, stages, planner, runs)
        name = OWN if own else planner_named(planner or DEFAULT_PLANNER).name
        measured = measurements(efficiency)
        check_recipe(recipe, measured)
        runs.check_options(lead=lead, weights=weights)
        delay = latency_of("--latency", latency)
        linked = [with_link(one.profile, delay, bandwidth) for one in profiles]
        asked = {
            "tolerance": tolerance,
            "memory_limit": memory_limit_of(memory_limit),
            "schedule": schedule,
            "chunks": chunks,
            "lead": lead,
            "micro_batches": micro_batches,
            "weights": weights,
            "optimizer": asked_optimizer(optimizer),
            "prediction_rule": prediction_rule,
            "recipe": recipe,
            "overlap": overlap,
            "speeds": speeds_of(speeds),
            "links": boundary_links(linked[0], stages, links, node_link, devices_per_node),
            "cut_only_at": names_of(CUT_ONLY_AT, cut_only_at),
        }
        known = {option: value for option, value in asked.items() if value is not None}
        options = PlanOptions.checked(**known)
        return cls(
            blocks=tuple(Blocks.of(one, options.cut_only_at) for one in linked),
            hashes=tuple(one.sha256 for one in profiles),
            stages=stages,
            devices=devices,
            global_batch=global_batch,
            cuts=own,
            planner=name,
            options=options,
            search=AskedSearch(
                options=options,
                objective=objective_of(objective),
                measured=measured,
                schedule=schedule,
                weights=weights,
                lead=lead,
                micro_batches=micro_batches,
            ),
        )

    def answer(self) -> Answer:
        """Return the plan: with the user's own cuts if there are any, else with the planner's.

        Raises:
            InputError: if an option is missing or goes with others only, or no plan is feasible.
        """
        if self.stages is None:
            found = self._search()
            best = found.best
            number = next(
                place for place, one in enumerate(self.blocks) if one.profile is best.model.profile
            )
            plan = price_plan(
                best.model, best.cuts, self.planner, self.hashes[number], best.expected.worth
            )
            return Answer(plan, best.model, self.blocks[number], found)
        model, blocks = self.in_stages()
        if self.cuts:
            cuts = blocks.allowed.own(self.cuts)
            check_within_limits(model, cuts)
        else:
            devices = model.placement.devices
            cuts = searched_cuts(blocks, devices, self.options, self.planner)
        plan = price_plan(model, cuts, self.planner, self.hashes[0], self._step_worth(model))
        return Answer(plan, model, blocks)

    def _step_worth(self, model: CostModel) -> StepWorth:
        lag = Lag.of(model.schedule, model.stages, model.options)
        measured = self.search.measured
        return expected_steps(measured, lag, model.options, model.profile.model).worth

    def in_stages(self) -> tuple[CostModel, Blocks]:
        """Return the costs of a given number of stages, and where they may be cut.

        Raises:
            InputError: if an option is given that goes with a search over devices only, or there
                are fewer places to cut than the stages need.
        """
        option = CUTS if self.cuts else "--stages"
        if self.stages is None or self.devices is not None:
            raise InputError(
                f"{option} and --devices are both given, and --devices searches the number of "
                "stages: give one of the two."
            )
        if self.global_batch is not None:
            raise InputError(
                f"--global-batch is given with {option}, where nothing depends on it: leave it "
                f"out, or give --devices instead of {option}."
            )
        if self.search.objective != THROUGHPUT:
            raise InputError(
                f"--objective is {self.search.objective} with {option}, but it chooses among ways "
                f"to use --devices: leave it out, or give --devices instead of {option}."
            )
        if len(self.blocks) > 1:
            raise InputError(
                f"{len(self.blocks)} profiles are given with {option}, which takes one: leave the "
                "others out, or give --devices to compare their micro-batches."
            )
        (blocks,) = self.blocks
        pieces = self.options.stages_on(self.stages)
        blocks.allowed.check_stages(pieces)
        return CostModel(blocks.profile, pieces, self.options), blocks

    def _search(self) -> DeviceSearch:
        """Search with the user's options; what the user named is not varied.

        The profiles are searched merged into blocks; the candidates are those of the profiles.
        """
        if self.devices is None:
            raise InputError(
                "neither --stages nor --devices is given: give the number of stages, or --devices "
                "and --global-batch to have it searched."
            )
        if self.global_batch is None:
            raise InputError(
                "--devices is given without --global-batch: give the samples of an optimizer step "
                "on all devices, at which combinations are compared."
            )
        if self.planner != DEFAULT_PLANNER:
            raise InputError(
                f"--planner is {self.planner!r}, but --devices searches with {DEFAULT_PLANNER} "
                "alone: leave --planner out, or ask for --stages."
            )
        merged = [each.merged for each in self.blocks]
        if self.devices > MOST_DEVICES:
            raise InputError(
                f"--devices is {self.devices}, accepted are whole numbers up to {MOST_DEVICES:,}."
            )
        found = self.search.run(merged, self.devices, self.global_batch)
        whole = {id(each.merged): each for each in self.blocks}
        return replace(
            found,
            candidates=tuple(
                _in_layers(candidate, whole[id(candidate.model.profile)])
                for candidate in found.candidates
            ),
        )


def _in_layers(candidate: Candidate, blocks: Blocks) -> Candidate:
    model = CostModel(blocks.profile, candidate.model.stages, candidate.model.options)
    return replace(candidate, model=model, cuts=blocks.in_layers(candidate.cuts))


def _devices_of(
    cuts: tuple[int | str, ...], stages: int | None, planner: str | None, schedule: Schedule
) -> int:
    """Return for how many devices cuts share a model out, which `--stages` may say too.

    That is the number of stages that they make, where each device holds one.
    """
    if planner is not None:
        raise InputError(
            f"--planner {planner} is given with --cuts, which leaves nothing to search: leave one "
            "of the two out."
        )
    made = schedule.placement(len(cuts) + 1).devices
    if stages not in {None, made}:
        raise InputError(
            f"--stages is {stages}, but --cuts {','.join(map(str, cuts))} makes {made} stages: "
            "leave --stages out, or give as many cuts as it needs."
        )
    return made
