"""The container that the ranks of campaigns run in, as slurm/site.yaml names it.

The driver and the launcher stay outside, and each rank is a process of the container: `mpirun ...
apptainer exec IMAGE python3 -m hpc_lpm ...`, as is usual with MPI. Or srun itself puts its tasks
into a container, `srun --container-image=IMAGE ...`.
"""

import os
import platform
import shlex
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hpc_lpm.cluster.container_options import (
    check_bind,
    check_runtime_options,
    check_srun_options,
)
from hpc_lpm.errors import InputError
from hpc_lpm.programs import installed
from hpc_lpm.typed_values import TypedModel, describe_validation_error

VARIABLE = "HPC_LPM_CONTAINER"
"""The variable that tells the jobs of a campaign their container."""

_BY_SRUN = frozenset({"pyxis", "slurm"})


def _one_word(value: str) -> str:
    if not value or value.startswith("-") or not value.isprintable():
        raise ValueError(f"accepted is a text in one line that begins with no -, found {value!r}")
    return value


def _one_bind(value: str) -> str:
    if "," in _one_word(value):
        raise ValueError(f"accepted is one folder, as FROM, FROM:TO or FROM:TO:ro, found {value!r}")
    return _from_home(value)


def _from_home(value: str) -> str:
    return str(Path.home() / value[2:]) if value.startswith("~/") else value


def _one_option(value: str) -> str:
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"{value} is no word of a command ({error})") from None
    if not value.startswith("-") or not value.isprintable():
        raise ValueError(f"accepted is an option of the runtime, such as --nv, found {value!r}")
    return value


Word = Annotated[str, AfterValidator(_one_word)]


class Container(TypedModel):
    """What ranks run in.

    Attributes:
        runtime: the program that runs it, `apptainer` or `singularity`; or what srun has for it:
            `pyxis`, the plugin with --container-image, or `slurm`, its own --container.
        image: the file or name of the image; for `slurm` the folder of a bundle of OCI.
        binds: folders of the machine that ranks see, as `FROM`, `FROM:TO` or `FROM:TO:ro`, beside
            those that the runtime shows by itself.
        options: further options of the runtime, or of srun, a text each.
        python: the Python in the container that hpc-lpm is installed in.
    """

    runtime: Literal["apptainer", "singularity", "pyxis", "slurm"]
    image: Annotated[Word, AfterValidator(_from_home)]
    binds: tuple[Annotated[str, AfterValidator(_one_bind)], ...] = ()
    options: tuple[Annotated[str, AfterValidator(_one_option)], ...] = ()
    python: Word = "python3"

    @field_validator("binds")
    @classmethod
    def _binds_are_folders(cls, binds: tuple[str, ...], before: ValidationInfo) -> tuple[str, ...]:
        for bind in binds:
            check_bind(bind, by_pyxis=before.data.get("runtime") == "pyxis")
        return binds

    @field_validator("options")
    @classmethod
    def _options_let_ranks_work(
        cls, options: tuple[str, ...], before: ValidationInfo
    ) -> tuple[str, ...]:
        by_srun = before.data.get("runtime") in _BY_SRUN
        for option in options:
            (check_srun_options if by_srun else check_runtime_options)(option)
        return options

    @model_validator(mode="after")
    def _binds_where_they_can_be(self) -> Self:
        if self.runtime == "slurm" and self.binds:
            raise ValueError("a bundle of OCI names its mounts in its config.json: leave binds out")
        return self

    @classmethod
    def of_jobs(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Return the container that the driver has told its jobs, None if it has told none.

        Raises:
            InputError: if the variable holds something else.
        """
        told = environment.get(VARIABLE)
        try:
            return cls.model_validate_json(told) if told else None
        except ValidationError as error:
            raise InputError(
                f"the variable {VARIABLE}, by which a driver tells its jobs their container, is "
                f"wrong at {describe_validation_error(error)}: unset it, and call snakemake again."
            ) from None

    def tell_jobs(self, environment: MutableMapping[str, str]) -> None:
        """Tell the jobs that this process submits their container."""
        environment[VARIABLE] = self.model_dump_json()

    @property
    def by_srun(self) -> bool:
        """Whether srun starts it."""
        return self.runtime in _BY_SRUN

    def require_launcher(self, mpi: str) -> None:
        """Check that a launcher can start ranks in it.

        Raises:
            InputError: if srun alone can.
        """
        if self.by_srun and mpi != "srun":
            raise InputError(
                f"slurm/site.yaml has a container that srun starts (runtime: {self.runtime}), but "
                f"the campaign's ranks are started by {mpi}: set launcher: {{mpi: srun}} in the "
                "campaign, or runtime: apptainer in slurm/site.yaml."
            )

    def require_installed(self) -> None:
        """Check that this node has the program that runs it.

        Raises:
            InputError: if it is not on the search path.
        """
        program = "srun" if self.by_srun else self.runtime
        if not installed(program):
            raise InputError(
                f"{program}, which is to start the container of slurm/site.yaml, is not on the "
                f"search path of {platform.node()}: have its module loaded (modules in that file), "
                "or name another runtime."
            )

    def srun_options(self, folder: Path) -> list[str]:
        """Return the options by which srun starts it, none if srun does not.

        Args:
            folder: where ranks work, which they see under the same path.

        Raises:
            InputError: if that path cannot be told to srun.
        """
        if not self.by_srun:
            return []
        further = self._words_of_options()
        if self.runtime == "slurm":
            return [f"--container={self.image}", *further]
        if {",", ":"} & set(str(folder)):
            raise InputError(
                f"{folder} cannot be mounted in a container, since --container-mounts takes commas "
                "and colons for its own: move the campaign to a folder without them."
            )
        mounts = [bind if ":" in bind else f"{bind}:{bind}" for bind in (str(folder), *self.binds)]
        return [
            f"--container-image={self.image}",
            f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={folder}",
            *further,
        ]

    def before_python(self) -> list[str]:
        """Return the words that precede a program to start it in it; none where srun starts it."""
        if self.by_srun:
            return []
        binds = [word for bind in self.binds for word in ("--bind", bind)]
        return [self.runtime, "exec", *binds, *self._words_of_options(), self.image]

    def _words_of_options(self) -> list[str]:
        return [word for option in self.options for word in shlex.split(option)]
