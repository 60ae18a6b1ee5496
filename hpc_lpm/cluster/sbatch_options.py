"""The options of sbatch: which of them a text of slurm/site.yaml holds, and which it must not.

They are read as sbatch reads them (getopt_long): long ones by any beginning that no other has too,
short ones combined and with their value behind them, and the first word that is none of them as the
script, which would take the place of the job's. Names that are not known here may be those of a
site's own plugins.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_SHOWN = 3

Value = Literal["none", "optional", "required"]

_REQUIRED = (
    "A:account a:array acctg-freq autocomplete batch bb bbf b:begin D:chdir cluster-constraint "
    "M:clusters comment C:constraint container container-id S:core-spec cores-per-socket cpu-freq "
    "cpus-per-gpu c:cpus-per-task deadline delay-boot d:dependency m:distribution e:error "
    "x:exclude export export-file extra B:extra-node-info gid gpu-bind gpu-freq G:gpus "
    "gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint i:input J:job-name "
    "kill-on-invalid-dep L:licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu "
    "mem-per-gpu mincpus network F:nodefile w:nodelist N:nodes n:ntasks ntasks-per-core "
    "ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode o:output p:partition power prefer "
    "priority profile q:qos reservation segment signal sockets-per-node switches tasks-per-node "
    "thread-spec threads-per-core t:time time-min tmp tres-bind tres-per-task uid wait-all-nodes "
    "wckey wrap"
)
_OPTIONAL = "exclusive get-user-env nice k:no-kill oom-kill-step propagate resv-ports"
_NONE = (
    "consolidate-segments contiguous h:help H:hold ignore-pbs no-requeue O:overcommit "
    "s:oversubscribe parsable Q:quiet reboot requeue spread-job spread-segments stepmgr test-only "
    "usage use-min-nodes v:verbose V:version W:wait"
)


def _tables() -> tuple[dict[str, Value], dict[str, str]]:
    long: dict[str, Value] = {}
    short: dict[str, str] = {}
    listed: tuple[tuple[str, Value], ...] = (
        (_REQUIRED, "required"),
        (_OPTIONAL, "optional"),
        (_NONE, "none"),
    )
    for words, value in listed:
        for word in words.split():
            letter, _, name = word.rpartition(":")
            long[name] = value
            if letter:
                short[letter] = name
    return long, short


_LONG, _SHORT = _tables()

_KEYS = {
    "account": "account",
    "partition": "partition",
    "qos": "qos",
    "constraint": "constraint",
    "reservation": "reservation",
    **dict.fromkeys(
        ("gpus-per-task", "gres", "gpus", "gpus-per-node", "gpus-per-socket"), "gpus_per_task"
    ),
    **dict.fromkeys(("cpus-per-gpu", "ntasks-per-gpu", "tres-per-task"), "gpus_per_task"),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "memory"),
    **dict.fromkeys(("container", "container-id"), "container"),
}
"""Options that the file has a key for."""

_OF_CAMPAIGNS = {
    "time": "resources.runtime_minutes",
    "nodes": "resources.nodes",
    "ntasks": "stages",
    **dict.fromkeys(
        ("ntasks-per-node", "tasks-per-node", "ntasks-per-core", "ntasks-per-socket"),
        "stages and resources.nodes",
    ),
}
"""Options that follow from a key of a campaign file."""

_SET = {
    "cpus-per-task": "one core for each rank",
    "job-name": "jobs are found by it again",
    "output": "a campaign keeps the logs of its jobs in its folder",
    "error": "a campaign keeps the logs of its jobs in its folder",
    "chdir": "jobs run in the folder of the Snakefile",
    "comment": "it names the rule",
    "parsable": "the number of the job is read from what sbatch says",
    "signal": "by it jobs learn that their time ends, as slurm_extra in slurm/config.v8+.yaml says",
    "dependency": "by it trials take turns",
}
"""Options that the toolkit or Snakemake's executor gives every job, with what they are for."""

_BREAKING = {
    **dict.fromkeys(
        ("export", "export-file", "get-user-env"),
        "take from jobs the environment that they are told things by",
    ),
    "array": "run every trial several times at once",
    "clusters": "send jobs to where the driver does not ask after them",
    "wrap": "take the place of the job's script",
    "test-only": "submit nothing",
    "wait": "keep the driver from doing anything else until the job has ended",
    **dict.fromkeys(("help", "usage", "version", "autocomplete"), "submit nothing"),
}
"""Options with which jobs or the driver do not do what they are for, with what these would do."""


@dataclass(frozen=True)
class GivenOption:
    """An option in a text: as it was written there, and its long name if it is known."""

    written: str
    name: str | None


def options_in(text: str) -> list[GivenOption]:
    """Return the options that a text of a command line holds, as sbatch would read them.

    Raises:
        ValueError: if it is no text of words, or sbatch would not take all of it as options.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text} is no word of a command ({error})") from None
    rest = iter(words)
    return [option for word in rest for option in _options_of(word, rest)]


def check_options(text: str) -> None:
    """Check that a text holds options of sbatch alone, and such as jobs may have.

    Raises:
        ValueError: if not; the sentence says what to use in their place.
    """
    for option in options_in(text):
        shown, name = option.written, option.name or ""
        if name in _KEYS:
            raise ValueError(f"{shown} has a key of its own: {_KEYS[name]}")
        if name in _OF_CAMPAIGNS:
            raise ValueError(f"{shown} is what a campaign says: {_OF_CAMPAIGNS[name]}")
        if name in _SET:
            raise ValueError(f"{shown} is set for every job ({_SET[name]}): leave it out")
        if name in _BREAKING:
            raise ValueError(f"{shown} would {_BREAKING[name]}: leave it out")


def _options_of(word: str, rest: Iterator[str]) -> Iterator[GivenOption]:
    """Yield the options of one word; their value may be the next of the others."""
    if word.startswith("--") and word != "--":
        yield _long_option(word, rest)
    elif word.startswith("-") and word not in ("-", "--"):
        yield from _short_options(word, rest)
    else:
        raise ValueError(
            f"{word} is no option of sbatch, which would take it for the script of the job: "
            "accepted are options such as --nice=100"
        )


def _long_option(word: str, rest: Iterator[str]) -> GivenOption:
    typed, equals, _ = word.removeprefix("--").partition("=")
    if not typed:
        raise ValueError(f"{word} is no option of sbatch: correct or remove it")
    meant = [typed] if typed in _LONG else [name for name in _LONG if name.startswith(typed)]
    if not meant:
        return GivenOption(word, None)
    if len(meant) > 1:
        listed = " and of ".join(f"--{name}" for name in meant[:_SHOWN])
        raise ValueError(f"--{typed} is the beginning of {listed}: write the whole name")
    (name,) = meant
    if _LONG[name] == "none" and equals:
        raise ValueError(f"{word} has a value, but --{name} takes none: leave it out")
    if _LONG[name] == "required" and not equals:
        return GivenOption(f"{word} {_next_word(word, rest)}", name)
    return GivenOption(word, name)


def _short_options(word: str, rest: Iterator[str]) -> Iterator[GivenOption]:
    for at, letter in enumerate(word[1:], start=1):
        name = _SHORT.get(letter)
        if name is None:
            raise ValueError(f"-{letter} in {word} is no option of sbatch: correct or remove it")
        if _LONG[name] == "none":
            yield GivenOption(word, name)
            continue
        has_value = at + 1 < len(word)
        needs_next = _LONG[name] == "required" and not has_value
        yield GivenOption(f"{word} {_next_word(word, rest)}" if needs_next else word, name)
        return


def _next_word(word: str, rest: Iterator[str]) -> str:
    found = next(rest, None)
    if found is None:
        raise ValueError(f"{word} has no value: write one behind it, as --nice=100 has")
    return found
