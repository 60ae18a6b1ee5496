"""The options with which a container would not be one that ranks can train in.

`apptainer exec` and `singularity exec` take short options combined (`-eC`) and switches with their
value behind a `=` (`--cleanenv=true`); srun takes long ones by their beginnings too.
"""

import re
import shlex
from collections.abc import Iterator, Mapping

_TOLD = "hide from ranks what mpirun tells them, so that each would be alone"
_PROCESSES = "hide ranks from the launcher, whose signals would not reach them"
_FILES = "hide from ranks the folder of the study and the memory that they share"
_NETWORK = "hide ranks on other nodes from each other"
_NOT_RUN = "say something in place of starting ranks"
_PLACE = "start ranks in a folder other than that of the study"

_OF_APPTAINER: Mapping[str, str] = {
    **dict.fromkeys(("cleanenv", "containall", "compat", "oci"), _TOLD),
    "pid": _PROCESSES,
    **dict.fromkeys(("contain", "ipc"), _FILES),
    "net": _NETWORK,
    **dict.fromkeys(("help", "version"), _NOT_RUN),
    **dict.fromkeys(("pwd", "cwd"), _PLACE),
}
"""The options of apptainer and singularity that are refused, with what they would do."""

_LETTERS = {
    **{"e": "cleanenv", "C": "containall", "c": "contain", "p": "pid", "i": "ipc", "n": "net"},
    **{"h": "help", "f": "fakeroot", "u": "userns", "w": "writable"},
}
_LETTERS_WITH_VALUES = {"B": "bind", "H": "home", "o": "overlay", "S": "scratch", "W": "workdir"}
_SWITCHES = {
    *_LETTERS.values(),
    *("compat", "oci", "version", "nv", "nvccli", "rocm", "no-nv", "no-rocm", "no-home", "no-init"),
    *("no-umask", "no-eval", "no-privs", "keep-privs", "no-https", "nohttps", "uts", "underlay"),
    *("writable-tmpfs", "allow-setuid", "disable-cache", "sharens", "userns", "no-compat"),
}
"""The options of apptainer and singularity that never take the next word as their value."""

_OF_SRUN: Mapping[str, str] = {
    "export": _TOLD,
    "chdir": _PLACE,
    "container-workdir": _PLACE,
    **dict.fromkeys(("ntasks", "nodes"), "start another number of ranks than the campaign has"),
    **dict.fromkeys(("container", "container-image"), "start another container than `image`"),
    **dict.fromkeys(("help", "usage", "version", "test-only"), _NOT_RUN),
}
"""The same of srun."""

_LETTERS_OF_SRUN = {"D": "chdir", "n": "ntasks", "N": "nodes", "h": "help", "V": "version"}
_SHORTEST_BEGINNING = 3
_FALSE = {"=false", "=0", "=f", "=F", "=False", "=FALSE"}


def check_runtime_options(text: str) -> None:
    """Check a text of options of `apptainer exec`, or of singularity.

    Raises:
        ValueError: if one keeps ranks from working together, or a word is no option at all.
    """
    words = shlex.split(text)
    value_may_follow = False
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            if not value_may_follow:
                raise ValueError(f"{word} in {text} would be taken for the image: leave it out")
            value_may_follow = False
            continue
        value_may_follow = False
        for name, value, takes_next in _options_of(word):
            value_may_follow = takes_next
            if name in _OF_APPTAINER and value not in _FALSE:
                raise ValueError(f"{word} would {_OF_APPTAINER[name]}: leave it out")


def check_srun_options(text: str) -> None:
    """Check a text of options of srun, which starts the container itself.

    Raises:
        ValueError: if one keeps ranks from working together.
    """
    words = shlex.split(text)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, value = _refused_of_srun(word, following)
        if name is not None and not (name == "export" and _keeps_all(value)):
            raise ValueError(f"{word} would {_OF_SRUN[name]}: leave it out")


def _refused_of_srun(word: str, following: str) -> tuple[str | None, str]:
    """Return the name of an option that may be refused, None for others, and its value."""
    if not word.startswith("--"):
        letter = word[1:2] if word.startswith("-") else ""
        return _LETTERS_OF_SRUN.get(letter), ""
    typed, equals, value = word.removeprefix("--").partition("=")
    for name in _OF_SRUN:
        begins = len(typed) >= _SHORTEST_BEGINNING and name.startswith(typed)
        if name == typed or begins:
            return name, value if equals else following
    return None, ""


def check_bind(value: str, *, by_pyxis: bool) -> None:
    """Check a folder that ranks see, as FROM, FROM:TO or FROM:TO:OPTIONS.

    Raises:
        ValueError: if it is none, naming the part that is wrong.
    """
    accepted = "accepted is one folder, as FROM, FROM:TO or FROM:TO:ro"
    source, *others = value.split(":")
    if len(others) > 2 or not source:
        raise ValueError(f"{accepted}, found {value!r}")
    target = others[0] if others else source
    if not target.startswith("/"):
        where = "TO" if others else "FROM"
        raise ValueError(f"{accepted} where {where} begins with /, found {value!r}")
    flags = r"[a-z]+(\+[a-z]+)*" if by_pyxis else r"ro|rw|(image-src|id)=.+"
    if len(others) == 2 and not re.fullmatch(flags, others[1]):
        raise ValueError(f"{accepted}, found {others[1]!r} in place of ro in {value!r}")


def _options_of(word: str) -> Iterator[tuple[str, str, bool]]:
    """Yield of each option in a word its name, its `=value`, and whether the next may be one."""
    if word.startswith("--"):
        name, equals, value = word.removeprefix("--").partition("=")
        yield name, equals + value, not equals and name not in _SWITCHES
        return
    for at, letter in enumerate(word[1:], start=1):
        rest = word[at + 1 :]
        if letter in _LETTERS_WITH_VALUES:
            yield _LETTERS_WITH_VALUES[letter], rest, not rest
            return
        if letter not in _LETTERS:
            raise ValueError(f"-{letter} in {word} is no option of the runtime: leave it out")
        yield _LETTERS[letter], rest if rest.startswith("=") else "", False
        if rest.startswith("="):
            return


def _keeps_all(exported: str) -> bool:
    """Tell if a value of --export leaves ranks the whole environment."""
    return exported.partition(",")[0].upper() == "ALL"
