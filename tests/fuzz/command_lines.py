"""Valid command lines of every command, and every option of theirs with a value that is spoilt."""

import typer
from typer.main import get_command

from tests.fuzz.cases import DATASET, MODEL, TRAINED
from tests.fuzz.judging import alone
from tests.fuzz.mutators import Mutation, one_of
from tests.fuzz.values import NUMBERS, TEXTS

COMMAND_LINES: tuple[tuple[str, ...], ...] = (
    ("plan", "profile.json", "--stages", "2", "--json"),
    ("plan", "profile.json", "--stages", "2", "--pareto", "--json"),
    ("plan", "profile.json", "--devices", "4", "--global-batch", "16", "--json"),
    ("plan", "graph.txt", "--stages", "2", "--schedule", "gpipe", "--micro-batches", "2"),
    ("simulate", "profile.json", "--plan", "plan.json", "--json"),
    ("simulate", "profile.json", "--plan", "plan.json", "--steps", "3"),
    (*TRAINED, "--out", "other"),
    (*TRAINED, "--settings", "settings.json", "--out", "other"),
    (*TRAINED, "--strategy", "fbp", "--plan", "plan.json", "--lead", "2", "--out", "other"),
    ("advise", MODEL, "--dataset", DATASET, "--devices", "2", "--batch-size", "8", "--json"),
    ("profile", MODEL, "--dataset", DATASET, "--micro-batch", "4", "--out", "other.json"),
    ("datasets", DATASET, "--json"),
    ("datasets", "synthetic,samples=20,features=8", "--json"),
    ("datasets", "text:text,sequence=8,pattern=*.txt"),
    ("datasets", "table:table.csv,target=label,missing=drop,test=0.2"),
    ("datasets", "images:images/png,size=8,fit=pad,channels=1"),
    ("models", "--json"),
    ("planners", "--json"),
    ("strategies", "--json"),
    ("validate", "campaign.yaml", "--json"),
    ("report", "nowhere"),
    ("compare", "finished", "nowhere"),
    ("evaluate", "run", "--json"),
    ("export", "run", "--out", "other.safetensors"),
    ("init", "study"),
    ("init", "--here", "--json"),
    ("doctor", "--ranks", "2"),
    ("campaign", "prune", "finished"),
    ("campaign", "summary", "finished"),
    ("campaign", "expectations", "finished", "--out", "expectations.json"),
    ("campaign", "launch", "finished", "--ranks", "2", "--log", "log.txt", "--", "models"),
    ("campaign", "tune", "finished", "nothing", "--log", "log.txt"),
)

_WRITTEN = {"out", "figure", "html", "log", "write_campaign", "folder"}
"""What is written to, where a test that runs as root should name nothing outside its folder."""
_NAMES = ["", " ", "new/deep/file", "a" * 300, "a\nb", "images", "finished", "-x", "$(a)", "text/a"]
_TYPED = [each for each in TEXTS if "\0" not in each and "\ud800" not in each]
"""What a shell can hand over."""
_VALUES = [*_TYPED, *(f"{number}"[:4000] for number in NUMBERS if abs(number) < 10**100), "\udcff"]


def spoilt(line: tuple[str, ...], mutations: list[Mutation]) -> list[str]:
    """Return a command line with some options given, each with a value that is spoilt."""
    words = list(line)
    group = get_command(alone(words[0])).commands[words[0]]  # type: ignore[attr-defined]
    end = 2 if hasattr(group, "commands") else 1
    command = group.commands[words[1]] if end == 2 else group
    for mutation in mutations:
        parameter = one_of(command.params, mutation.where)
        values = _NAMES if parameter.name in _WRITTEN else _VALUES
        value = one_of(values, mutation.which)
        if mutation.what % 11 == 0:  # a word of the line itself
            place = end + mutation.which % max(len(words) - end, 1)
            safe = words[place - 1].removeprefix("--").replace("-", "_") not in _WRITTEN
            before = words[:end] == words[:place]
            if safe and not (before and "folder" in {each.name for each in command.params}):
                words[place:] = [one_of(_VALUES, mutation.where), *words[place + 1 :]]
        elif isinstance(parameter, typer.core.TyperArgument):
            if end < len(words):
                words[end] = value
        elif getattr(parameter, "is_flag", False):
            words.insert(end, one_of([*parameter.opts, *parameter.secondary_opts], mutation.which))
        else:
            words[end:end] = [parameter.opts[0], value]
    return words
