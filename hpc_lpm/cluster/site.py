"""The particulars of a cluster, slurm/site.yaml: what its jobs must ask for and run on.

A profile of Snakemake refuses keys that it does not know, and what one of its sections says about a
resource replaces what another says. What is in this file is added to what the campaign and the
profile ask for.
"""

import ipaddress
import re
import shlex
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError

from hpc_lpm.cluster.container import VARIABLE as CONTAINER
from hpc_lpm.cluster.container import Container
from hpc_lpm.cluster.sbatch_options import check_options
from hpc_lpm.documents import DocumentError, parse_yaml
from hpc_lpm.errors import InputError
from hpc_lpm.files import read_text, unreadable
from hpc_lpm.interfaces import OF_LIBRARIES
from hpc_lpm.typed_values import TypedModel, describe_validation_error

FILE = Path("slurm") / "site.yaml"
"""Where it is, beside the Snakefile."""

MODULES = "HPC_LPM_MODULES"
"""The variable that tells slurm/job.sh which modules to load."""

_INTERFACE = r"(?=.*[A-Za-z_])[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}"
"""What names a network interface: Linux takes up to 15 characters."""

_BITS_OF_ADDRESSES = 32

_SIGNS_OF_SHELLS = set(" '\"$`\\;&|<>()[]*?!#~%")


def _one_line(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError(f"accepted is a text in one line, found {value!r}")
    return value


def _one_name(value: str) -> str:
    if _one_line(value).startswith("-") or _SIGNS_OF_SHELLS & set(value):
        raise ValueError(
            f"accepted is a name without spaces, % and signs of a shell, found {value!r}"
        )
    return value


def _interface_or_network(value: str) -> str:
    accepted = (
        "accepted are the name of one interface, such as ib0, and its network, as 10.0.0.0/24"
    )
    address, slash, bits = _one_name(value).partition("/")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        if re.fullmatch(_INTERFACE, value):
            return value
        raise ValueError(f"{accepted}, found {value!r}") from None
    if not slash:
        raise ValueError(f"{value} is an address: {accepted}")
    if not re.fullmatch("[0-9]{1,2}", bits) or not 1 <= int(bits) <= _BITS_OF_ADDRESSES:
        raise ValueError(
            f"{value} has the prefix {bits!r} where 1 to {_BITS_OF_ADDRESSES} bits are accepted, "
            "as in 10.0.0.0/24"
        )
    return value


def _some_options(value: str) -> str:
    if not _one_line(value).startswith("-"):
        raise ValueError(f"accepted is an option of sbatch, such as --nice=100, found {value!r}")
    check_options(value)
    return value


Name = Annotated[str, AfterValidator(_one_name)]
Option = Annotated[str, AfterValidator(_some_options)]


class Site(TypedModel):
    """What a cluster needs of the jobs of campaigns; all of it may be left out.

    Attributes:
        account: what jobs are charged to.
        partition: where they run.
        qos: their quality of service.
        reservation: the reservation that they use.
        constraint: features that their nodes must have.
        gpus_per_task: GPUs for every rank.
        memory: whether jobs may say how much memory they need.
        modules: what every job loads before anything else, in order.
        container: what ranks run in.
        interface: the network interface, or its network as `10.0.0.0/24`, that joins the nodes.
        options: further options of sbatch, a text each.
    """

    account: Name | None = None
    partition: Name | None = None
    qos: Name | None = None
    reservation: Name | None = None
    constraint: Annotated[str, AfterValidator(_one_line)] | None = None
    gpus_per_task: Annotated[int, Field(ge=1)] | None = None
    memory: bool = True
    modules: tuple[Name, ...] = ()
    container: Container | None = None
    interface: Annotated[str, AfterValidator(_interface_or_network)] | None = None
    options: tuple[Option, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of a folder that holds a Snakefile; without a file nothing is asked for.

        Raises:
            InputError: if it is not YAML, or says something else than what is defined here.
        """
        path = folder / FILE
        try:
            document = parse_yaml(read_text(path))
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(str(path), error) from None
        except DocumentError as error:
            raise InputError(f"{path} is not YAML ({error}): correct it.") from None
        if document is None:  # nothing but comments
            return cls()
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InputError(
                f"{path} is wrong at {describe_validation_error(error)}: accepted keys are "
                f"{', '.join(cls.model_fields)}."
            ) from None

    def resources(self, *options: str) -> dict[str, str]:
        """Return what a rule asks for, as resources of Snakemake's Slurm executor.

        Args:
            options: further options of sbatch, each none or several words of a command line.
        """
        named = {
            "slurm_account": self.account,
            "slurm_partition": self.partition,
            "qos": self.qos,
            "constraint": self.constraint,
            "slurm_extra": self._extra_options(options) or None,
        }
        return {name: value for name, value in named.items() if value is not None}

    def memory_resources(self, **asked: Any) -> dict[str, Any]:
        """Return these resources; where jobs must not ask for memory, what makes them ask for none.

        Snakemake would put a usual amount in their place.
        """
        return asked if self.memory else {"mem_mb": 0}

    def _extra_options(self, others: Sequence[str]) -> str:
        asked = self.as_command()
        named = (asked.get(key, []) for key in ("reservation", "gpus_per_task", "options"))
        words = (shlex.quote(word) for words in named for word in words)
        return " ".join([*filter(None, others), *words])

    def prepare(self, environment: MutableMapping[str, str]) -> None:
        """Tell the jobs of this process what to load, their container, and the network to use."""
        if self.modules:
            environment[MODULES] = " ".join(self.modules)
        environment.pop(CONTAINER, None)  # it was for the campaign of a shell around this one
        if self.container is not None:
            self.container.tell_jobs(environment)
        if self.interface is not None:
            of_mpi, of_gloo = OF_LIBRARIES
            environment.setdefault(of_mpi, self.interface)
            if "/" not in self.interface:  # gloo takes no network
                environment.setdefault(of_gloo, self.interface)

    def check_launcher(self, mpi: str) -> None:
        """Check that what starts a campaign's ranks can start them in the site's container.

        Raises:
            InputError: if it cannot.
        """
        if self.container is not None:
            self.container.require_launcher(mpi)

    def as_command(self) -> dict[str, list[str]]:
        """Return the words of sbatch that each key of the file stands for, by key."""
        flags = {
            "account": "--account",
            "partition": "--partition",
            "qos": "--qos",
            "reservation": "--reservation",
            "constraint": "--constraint",
            "gpus_per_task": "--gpus-per-task",
        }
        values: Mapping[str, Any] = {name: getattr(self, name) for name in flags}
        words = {
            name: [f"{flags[name]}={value}"] for name, value in values.items() if value is not None
        }
        if self.memory:
            words["memory"] = ["--mem-per-cpu=100"]
        if self.options:
            words["options"] = [word for option in self.options for word in shlex.split(option)]
        return words
