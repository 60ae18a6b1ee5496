"""Races the networks of the guide in two stages against one device, with the guide's own commands.

    python -m benchmarks.guide --out FOLDER [--repeats 6]

Takes the files and the commands of docs/how-to/own-model.md. After profile and plan, one process
on one thread and two ranks of one thread each train in turns with the same settings. Writes
`guide.csv` and `guide.md` with the median of the ratios of their rates and its 95 % interval, and
the test accuracy of both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.race import markdown, median, ratio, shown
from hpc_lpm.cluster.launchers import rank_environment

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "how-to" / "own-model.md"
FILES = {"net": "my_net.py", "gpt2": "gpt2.json", "unet": "my_unet.py"}
SEQUENTIAL, PIPELINE = "sequential", "fbp"


@dataclass(frozen=True)
class Example:
    """One example of the guide: its file, what prepares it, and the command that trains it."""

    name: str
    file: str
    text: str
    preparation: str
    training: str


def examples() -> list[Example]:
    """Read the examples as they are printed."""
    blocks = GUIDE.read_text(encoding="utf-8").split("```")[1::2]
    found = []
    for name, file in FILES.items():
        language = "json" if file.endswith(".json") else "python"
        texts = [block.removeprefix(language) for block in blocks if block.startswith(language)]
        text = next(t for t in texts if language == "json" or t.lstrip().startswith(f"# {file}"))
        commands = next(block for block in blocks if f"results/{name}" in block).removeprefix("sh")
        preparation, training = commands.split("mpirun", 1)
        found.append(Example(name, file, text, preparation, f"mpirun{training}"))
    return found


def trained(example: Example, strategy: str, folder: Path) -> dict[str, object]:
    """Train once, and return what was measured."""
    command = example.training
    if strategy == SEQUENTIAL:
        start, options = command.split("hpc_lpm train", 1)
        assert "--strategy fbp --plan" in options, start
        plan = options.split("--plan ", 1)[1].split()[0]
        options = options.replace(f"--strategy fbp --plan {plan}", "--strategy sequential")
        command = f"hpc-lpm train{options}"
    exports = [line for line in example.preparation.splitlines() if line.startswith("export ")]
    _run("\n".join([*exports, command]), folder)
    result = json.loads((folder / "results" / example.name / "result.json").read_text())
    return {
        "samples_per_second": result["samples_per_second"],
        "test_accuracy": result["test_accuracy"][-1],
    }


def _run(commands: str, folder: Path) -> None:
    programs = str(Path(sys.executable).parent)
    environment = rank_environment(os.environ, threads=1) | {"OMP_NUM_THREADS": "1"}
    environment["PATH"] = os.pathsep.join([programs, environment["PATH"]])
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def raced(example: Example, repeats: int) -> pd.DataFrame:
    """Prepare an example and train it both ways in turns."""
    rows = []
    with tempfile.TemporaryDirectory() as own:
        folder = Path(own)
        (folder / example.file).write_text(example.text)
        _run(example.preparation, folder)
        for repeat in range(repeats):
            for strategy in (SEQUENTIAL, PIPELINE):
                outcome = trained(example, strategy, folder)
                rows.append(
                    {"example": example.name, "repeat": repeat, "label": strategy, **outcome}
                )
    return pd.DataFrame(rows)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=6)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([raced(example, options.repeats) for example in examples()])
    rows.to_csv(options.out / "guide.csv", index=False)
    cells = []
    for name, group in rows.groupby("example", sort=False):
        of_both = [
            shown(median(group, label, column), digits)
            for column, digits in (("samples_per_second", 1), ("test_accuracy", 3))
            for label in (SEQUENTIAL, PIPELINE)
        ]
        gain = ratio(group, PIPELINE, SEQUENTIAL, "samples_per_second")
        cells.append([str(name), *of_both[:2], shown(gain), *of_both[2:], str(gain.n)])
    headings = ["example", "one device, samples/s", "two stages, samples/s", "ratio"]
    headings += ["accuracy, one device", "accuracy, two stages", "n"]
    (options.out / "guide.md").write_text(markdown(headings, cells))
    sys.stdout.write(markdown(headings, cells))


if __name__ == "__main__":
    main()
