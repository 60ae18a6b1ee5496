"""The files of a campaign's folder that its crate describes."""

from dataclasses import dataclass
from pathlib import Path

DESCRIPTIONS = {
    "report.html": "Report of the campaign: tables, figures, settings and how to repeat it",
    "summary.csv": "One row per training run",
    "summary.parquet": "One row per training run",
    "statistics.csv": "Median, 95 % interval and number of runs of every metric and contestant",
    "expectations.json": "What the campaign expects of its results, as it was found to hold",
    "figures/*.svg": "Figure of the report",
    "figures/*.csv": "Numbers of the figure of the same name",
    "profiles/*.launch.json": "How and where the profile of the same name was measured",
    "profiles/*.json": "Time, memory and output size of every layer, and of the link",
    "plans/*.launch.json": "How and where the plan of the same name was computed",
    "plans/*.json": "Which layers each stage holds",
    "tuned/*.json": "What was tried of a contestant before its runs, and what was chosen",
    "provenance/campaign.json": "The campaign file as it was resolved",
    "provenance/hashes.json": "Hash of what each run, plan and profile is computed from",
    "provenance/environment.json": "Source, packages, hardware, MPI and Slurm at the start",
    "provenance/launches.json": "Command, start, end, nodes and exit code of every run",
    "provenance/provenance.json": "All of the provenance in one document",
}
RUN_DESCRIPTIONS = {
    "result.json": "Throughput, accuracy, memory, traffic and weights hash of the run",
    "metrics.jsonl": "Loss and time of every step",
    "trace.json": "What each rank did in the last steps, in Chrome's trace format",
    "launch.json": "Command, start, end, nodes and exit code of the run",
    "attempts.json": "Every start of the run",
    "weights.safetensors": "Trained weights under the names of the model's modules",
    "identity.json": "Everything that the run is computed from, and its hash",
    "train.log": "What the ranks wrote",
}
"""Checkpoints are left out: they only serve to resume a run, after which most are removed."""

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".safetensors": "application/octet-stream",
    ".parquet": "application/vnd.apache.parquet",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PayloadFile:
    """A file, by its path relative to the campaign's folder, and what it holds."""

    path: str
    description: str

    @property
    def media_type(self) -> str:
        """Media type of its content."""
        return MEDIA_TYPES[Path(self.path).suffix]


def campaign_files(root: Path) -> list[PayloadFile]:
    """Return the existing files that belong to the campaign as a whole."""
    found: dict[str, PayloadFile] = {}
    for pattern, description in DESCRIPTIONS.items():
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            found.setdefault(name, PayloadFile(name, description))
    return list(found.values())


def run_files(root: Path, run: str) -> list[PayloadFile]:
    """Return the existing files of one run, by the name of its folder."""
    names = ((f"runs/{run}/{name}", text) for name, text in RUN_DESCRIPTIONS.items())
    return [PayloadFile(name, text) for name, text in names if (root / name).is_file()]
