"""Every kind of file that the toolkit reads: a valid one, what reads it, and how it is spoilt."""

import csv
import gzip
import hashlib
import json
import shutil
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from hpc_lpm.campaign.config import Campaign, campaign_from_document, read_campaign
from hpc_lpm.campaign.environment import read_environment
from hpc_lpm.campaign.figures.stage_activity import read_trace
from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.folder import Hashes
from hpc_lpm.campaign.launch_records import Attempt, AttemptRecord, Launch
from hpc_lpm.campaign.provenance import CampaignProvenance, write_provenance
from hpc_lpm.campaign.results import load_results
from hpc_lpm.campaign.run_log import read_run_log
from hpc_lpm.campaign.tuning.tuned import TriedCandidate, Tuned
from hpc_lpm.cluster.site import Site
from hpc_lpm.data.description import describe_dataset
from hpc_lpm.data.registry import dataset_shape, load_dataset
from hpc_lpm.engine.checkpoint.export import export_weights
from hpc_lpm.engine.result import RunResult
from hpc_lpm.engine.settings import checked_settings, read_settings
from hpc_lpm.models.initial_weights import load_initial_weights
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.worth.measured import PACKAGED, Measurements
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.profile_formats.read import read_profile
from hpc_lpm.schedules.table import TableSchedule
from tests.fuzz.judging import run
from tests.fuzz.mutators import (
    Mutation,
    spoil_bytes,
    spoil_document,
    spoil_lines,
    spoil_safetensors,
)
from tests.unit import cifar_copies
from tests.unit.campaign_folders import STARTED, write_folder
from tests.unit.pipedream_files import RESIDUAL

MODEL, DATASET = "mlp,width=4", "digits,size=8"
TRAINED = ("train", "--model", MODEL, "--dataset", DATASET, "--batch-size", "8", "--steps", "1")


@dataclass(frozen=True)
class Case:
    """A kind of file.

    Attributes:
        name: what it is.
        file: its path in the folder that `write_files` has filled, which is the current one.
        spoil: makes its content anew after some changes.
        read: reads it as a command does, the quickest way.
        command: the cheapest command that reads it; none where Snakemake alone has it read.
        codes: how the command may end.
    """

    name: str
    file: str
    spoil: Callable[[bytes, list[Mutation]], bytes]
    read: Callable[[], object]
    command: tuple[str, ...] = ()
    codes: frozenset[int] = field(default=frozenset({0, 2}))


def _json(content: bytes, mutations: list[Mutation]) -> bytes:
    if mutations[0].where % 5 == 0:
        return spoil_bytes(content, mutations)
    return spoil_document(json.loads(content), mutations).encode(errors="surrogatepass")


def _yaml(content: bytes, mutations: list[Mutation]) -> bytes:
    if mutations[0].where % 3 == 0:
        return spoil_lines(content.decode(), mutations)
    spoilt = spoil_document(yaml.safe_load(content), mutations, yaml=True)
    return spoilt.encode(errors="surrogatepass")


def _lines(content: bytes, mutations: list[Mutation]) -> bytes:
    return spoil_lines(content.decode(), mutations)


def _json_lines(content: bytes, mutations: list[Mutation]) -> bytes:
    lines = content.splitlines()
    place = mutations[0].where % len(lines)
    lines[place] = _json(lines[place], mutations)
    return b"\n".join(lines)


def _unsealed(content: bytes, mutations: list[Mutation]) -> bytes:
    """Spoil a plan that anyone may have written, without the hash of its content."""
    document = {**json.loads(content), "content_sha256": None}
    return spoil_document(document, mutations).encode(errors="surrogatepass")


def _unpacked(content: bytes, mutations: list[Mutation]) -> bytes:
    """Spoil what is in a compressed file, or the compressed file itself."""
    if mutations[0].where % 4 == 0:
        return spoil_bytes(content, mutations)
    return gzip.compress(spoil_bytes(gzip.decompress(content), mutations), mtime=0)


def _again_in_manifest(file: Path) -> None:
    """Give a spoilt file of a checkpoint the hash that the manifest has of it."""
    manifest = file.parent / "manifest.json"
    document = json.loads(manifest.read_text())
    for entry in document["files"]:
        path = manifest.with_name(entry["name"])
        if not path.is_file() or path.stat().st_size > 2**20:  # another thing in its place
            continue
        entry["size_bytes"] = path.stat().st_size
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))
    _unseal(manifest)


def _unseal(file: Path) -> None:
    """Take the hash of its content from a file: with it any change is found in the same way."""
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "content_sha256": None}))


def _write_profile(path: Path, model: str) -> None:
    layers = tuple(
        LayerProfile(
            name=f"layer{index}",
            forward_seconds=0.001 * (index + 1),
            backward_seconds=0.002,
            output_bytes=4096,
            parameter_bytes=1000,
            activation_bytes=70000,
            weight_gradient_seconds=0.001,
            split_backward_seconds=0.0025,
            fingerprint="0" * 16,
        )
        for index in range(4)
    )
    link = LinkProfile(latency_seconds=1e-5, bandwidth_bytes_per_second=1e9)
    Profile(
        model=model,
        micro_batch=4,
        device="cpu",
        dtype="float32",
        layers=layers,
        link=link,
        links=(link,),
        environment={"link": "measured", "ranks": 2, "threads": 1},
        train_samples=1000,
        test_samples=100,
        inputs={"kind": "image", "shape": [1, 8, 8]},
    ).write(path)


CAMPAIGN: dict[str, Any] = {
    "name": "fuzzed",
    "models": [MODEL],
    "datasets": [DATASET],
    "strategies": ["sequential", {"fbp": {"name": "live", "weights": "live", "lead": 2}}, "gpipe"],
    "planners": ["lpm", "greedy"],
    "stages": 2,
    "batch_size": 16,
    "micro_batches": 2,
    "epochs": 2,
    "seeds": [0, 1],
    "repeats": 2,
    "lead": 1,
    "optimizer": {"name": "momentum", "lr": 0.1, "options": {"nesterov": True}},
    "learning_rate": {"schedule": "cosine"},
    "launcher": {"mpi": "mpirun", "options": ["--oversubscribe"]},
    "resources": {"memory_megabytes": "1GiB", "runtime_minutes": "1h30m", "nodes": 1},
    "expect": [
        {
            "metric": "samples_per_second",
            "strategy": "live",
            "relative_to": "sequential",
            "at_least": 1.5,
        }
    ],
    "keep": ["weights"],
    "receive_timeout_seconds": "1m30s",
}

SITE: dict[str, Any] = {
    "account": "physics",
    "partition": "short",
    "constraint": "a&b",
    "gpus_per_task": 1,
    "memory": False,
    "modules": ["gcc/12", "openmpi"],
    "interface": "10.0.0.0/24",
    "options": ["--nice=100", "--mail-type END"],
}


def _finished() -> Campaign:
    document = {
        "name": "finished",
        "models": ["resnet20"],
        "datasets": ["digits"],
        "strategies": ["sequential", "fbp"],
        "epochs": 2,
        "repeats": 2,
        "expect": [
            {
                "metric": "samples_per_second",
                "strategy": "fbp",
                "relative_to": "sequential",
                "at_least": 1.1,
            }
        ],
    }
    return campaign_from_document(document, "a test")


def _write_campaigns(folder: Path) -> None:
    (folder / "campaign.yaml").write_text(yaml.safe_dump(CAMPAIGN, sort_keys=False))
    (folder / "slurm").mkdir()
    (folder / "slurm" / "site.yaml").write_text(yaml.safe_dump(SITE, sort_keys=False))
    files = write_folder(folder / "finished", _finished())
    shutil.copytree(folder / "finished", folder / "rival")
    files.hashes_file.write_text(Hashes(runs={"a": "b"}).model_dump_json())
    write_provenance(load_results(folder / "finished"))
    AttemptRecord(
        attempts=(Attempt(started=STARTED, ended=STARTED, exit_code=1, nodes=("n1",)),)
    ).write(folder / "attempts.json")
    Tuned(
        contestant="fbp",
        model=MODEL,
        dataset=DATASET,
        planner="lpm",
        budget_seconds=60,
        trained_seconds=30,
        seconds=40,
        candidates=(
            TriedCandidate(
                options={"lead": 2, "weights": "live"},
                style=None,
                rounds=2,
                steps=5,
                step_seconds=0.1,
                steps_ratio=1.1,
                failure=None,
            ),
        ),
        chosen=0,
    ).write(folder / "tuned.json")
    (folder / ".fingerprints.json").write_text(json.dumps({"0" * 64: ["1" * 64, "2" * 64]}))


def _write_data(folder: Path) -> None:
    chances = np.random.default_rng(0)
    pixels = chances.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    labels = (np.arange(12) % 3).astype(np.uint8)
    idx = folder / "idx"
    idx.mkdir()
    for part in ("train", "t10k"):
        content = struct.pack(">4I", 0x803, *pixels.shape) + pixels.tobytes()
        (idx / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content, mtime=0))
        head = struct.pack(">2I", 0x801, len(labels))
        (idx / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    cifar_copies.write_python(folder / "cifar" / "cifar-10-batches-py")
    cifar_copies.write_binary(folder / "binary" / "cifar-10-batches-bin")
    (folder / "packed").mkdir()
    with (
        gzip.GzipFile(folder / "packed" / "cifar-10-python.tar.gz", "wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        name = "cifar-10-batches-py"
        archive.add(folder / "cifar" / name, name, filter=_without_dates)
    for number, ending in enumerate(("png", "jpg", "gif", "bmp", "tiff", "webp")):
        for name in ("cat", "dog"):
            path = folder / "images" / ending / name / f"spoilt.{ending}"
            path.parent.mkdir(parents=True)
            for copy in range(3):
                image = Image.fromarray(chances.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                image.save(path if not copy else path.with_name(f"{number}{copy}.{ending}"))
    inputs = chances.normal(size=(12, 5)).astype(np.float32)
    np.savez(folder / "arrays.npz", x_train=inputs, y_train=labels, x_test=inputs, y_test=labels)
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", labels)
    with (folder / "table.csv").open("w", newline="") as stream:
        rows = [[n, n / 3, f"2026-01-{n + 1:02}", "ab"[n % 2], n % 3] for n in range(20)]
        csv.writer(stream).writerows([["a", "b", "day", "kind", "label"], *rows])
    _table(folder / "table.csv").to_parquet(folder / "table.parquet", index=False)
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text("to be or not to be, that is the question\n" * 20)
    _write_tokenizer(folder / "tokenizer.json")


def _without_dates(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member of an archive as it is on each run, so that it is spoilt alike."""
    member.mtime = 0
    return member


def _table(path: Path) -> Any:
    import pandas as pd

    return pd.read_csv(path)


def _write_tokenizer(path: Path) -> None:
    words = ["[UNK]", *["to", "be", "or", "not", ",", "that", "is", "the", "question"]]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    document = {"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}}
    path.write_text(json.dumps(document))


def write_files(folder: Path) -> None:
    """Write a valid file of each kind into the current folder."""
    _write_profile(folder / "profile.json", MODEL)
    (folder / "graph.txt").write_text(RESIDUAL)
    planned = run("plan", "profile.json", "--stages", "2", "--out", "plan.json")
    assert planned.code == 0, planned.said
    settings = {
        "model": MODEL,
        "dataset": DATASET,
        "strategy": "fbp",
        "batch_size": 16,
        "micro_batches": 2,
        "steps": 3,
        "seed": 1,
        "lead": 2,
        "weights": "live",
        "optimizer": {"name": "momentum", "lr": 0.1, "options": {"nesterov": True}},
        "learning_rate": {"schedule": "cosine"},
        "receive_timeout_seconds": "30s",
        "drain_at": [1, 2],
        "augmentation": [],
        "data_dir": None,
    }
    known = checked_settings(model=MODEL, dataset=DATASET, steps=1).model_dump()
    kept = {"lead", "weights", *known}
    settings = {name: value for name, value in settings.items() if name in kept}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "schedule.csv").write_text("0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1\n")
    shutil.copy(PACKAGED, folder / "measured.csv")
    trained = run(*TRAINED, "--out", "run")
    assert trained.code == 0, trained.said
    exported = run("export", "run", "--out", "weights.safetensors")
    assert exported.code == 0, exported.said
    _write_campaigns(folder)
    _write_data(folder)
    for name in ("plan.json", "result.json", "manifest.json"):
        for sealed in folder.rglob(name):
            _unseal(sealed)


def _settings_case() -> object:
    return checked_settings(**read_settings(Path("settings.json")))


def _weights_case() -> object:
    shape = dataset_shape(DATASET)
    model = create_model(MODEL, shape, 0)
    layers = {index: layer.build() for index, layer in enumerate(model.layers)}
    return load_initial_weights(Path("weights.safetensors"), model, layers)


def _data_case(name: str, file: str, spoil: Any, dataset: str, *options: str) -> Case:
    folder = Path(options[1]) if options else None
    return Case(
        name,
        file,
        spoil,
        lambda: describe_dataset(load_dataset(dataset, folder)),
        ("datasets", dataset, *options, "--json"),
    )


def _checkpoint_file(ending: str) -> str:
    (found,) = Path("run", "checkpoint").glob(f"step-*/*{ending}")
    return str(found)


def _export_case() -> object:
    return export_weights(Path("run"))


def _spoilt_checkpoint_case() -> object:
    manifest = Path(_checkpoint_file("manifest.json"))
    before = manifest.read_text()
    _again_in_manifest(Path(_checkpoint_file("rank-0.safetensors")))
    try:
        return export_weights(Path("run"))
    finally:
        manifest.write_text(before)


def cases() -> list[Case]:
    """Return all cases; the current folder is one that `write_files` has filled."""
    simulate = ("simulate", "profile.json", "--plan", "plan.json", "--json")
    trial = next(iter(sorted(Path("finished", "runs").iterdir())))
    ended = frozenset({0, 1, 2})
    manifest = _checkpoint_file("manifest.json")
    arrays = "npy:inputs.npy,targets=labels.npy"
    folder_cases = [
        ("result", "result.json", _json, RunResult.read),
        ("run log", "metrics.jsonl", _json_lines, read_run_log),
        ("trace", "trace.json", _json, read_trace),
        ("launch record", "launch.json", _json, Launch.read),
    ]
    return [
        Case(
            "profile",
            "profile.json",
            _json,
            lambda: read_profile(Path("profile.json")),
            ("plan", "profile.json", "--stages", "2", "--json"),
        ),
        Case(
            "graph of PipeDream's",
            "graph.txt",
            _lines,
            lambda: read_profile(Path("graph.txt")),
            ("plan", "graph.txt", "--stages", "2", "--json"),
        ),
        Case("plan", "plan.json", _json, lambda: Plan.read("plan.json"), simulate),
        Case("unsealed plan", "plan.json", _unsealed, lambda: Plan.read("plan.json"), simulate),
        Case(
            "campaign",
            "campaign.yaml",
            _yaml,
            lambda: read_campaign(Path("campaign.yaml")),
            ("validate", "campaign.yaml", "--json"),
        ),
        Case(
            "settings",
            "settings.json",
            _json,
            _settings_case,
            ("train", "--settings", "settings.json", "--out", "other"),
        ),
        Case("site", "slurm/site.yaml", _yaml, lambda: Site.read(Path())),
        Case(
            "table of a schedule",
            "schedule.csv",
            _lines,
            lambda: TableSchedule.read("schedule.csv", Path("schedule.csv")),
            (*simulate, "--strategy", "schedule:schedule.csv", "--micro-batches", "2"),
        ),
        Case(
            "measurements",
            "measured.csv",
            _lines,
            lambda: Measurements.read("measured.csv"),
            (
                *("plan", "profile.json", "--devices", "2", "--global-batch", "8", "--json"),
                *("--efficiency", "measured.csv", "--objective", "time-to-target"),
            ),
        ),
        Case(
            "weights",
            "weights.safetensors",
            spoil_safetensors,
            _weights_case,
            (*TRAINED, "--init-from", "weights.safetensors", "--out", "other"),
        ),
        Case(
            "manifest of a checkpoint",
            manifest,
            _json,
            _export_case,
            ("export", "run", "--out", "other.safetensors"),
        ),
        Case(
            "tensors of a checkpoint",
            _checkpoint_file("rank-0.safetensors"),
            spoil_safetensors,
            _spoilt_checkpoint_case,
            ("evaluate", "run", "--json"),
        ),
        *(
            Case(
                name,
                str(trial / file),
                spoil,
                lambda read=read, file=file: read(trial / file),  # type: ignore[misc]
                ("campaign", "summary", "finished"),
                ended,
            )
            for name, file, spoil, read in folder_cases
        ),
        Case(
            "campaign of a folder",
            "finished/provenance/campaign.json",
            _json,
            lambda: load_results(Path("finished")),
            ("campaign", "expectations", "finished", "--out", "expectations.json"),
            ended,
        ),
        Case(
            "record of hashes",
            "finished/provenance/hashes.json",
            _json,
            lambda: load_results(Path("finished")),
            ("compare", "finished", "rival", "--json"),
            ended,
        ),
        Case(
            "environment",
            "finished/provenance/environment.json",
            _json,
            lambda: read_environment(Path("finished/provenance/environment.json")),
            ("compare", "finished", "rival", "--json"),
            ended,
        ),
        Case(
            "provenance",
            "finished/provenance/provenance.json",
            _json,
            lambda: CampaignProvenance.read("finished/provenance/provenance.json"),
        ),
        Case("attempts", "attempts.json", _json, lambda: AttemptRecord.read("attempts.json")),
        Case("tuning", "tuned.json", _json, lambda: Tuned.read("tuned.json").choice),
        Case(
            "fingerprints",
            ".fingerprints.json",
            _json,
            lambda: Fingerprints(Path(".fingerprints.json"), print),
        ),
        _data_case("images in IDX", "idx/train-images-idx3-ubyte.gz", _unpacked, "idx:idx"),
        _data_case("labels in IDX", "idx/train-labels-idx1-ubyte", spoil_bytes, "idx:idx"),
        _data_case(
            "pickle of CIFAR",
            "cifar/cifar-10-batches-py/data_batch_2",
            spoil_bytes,
            "cifar10",
            *("--data-dir", "cifar"),
        ),
        _data_case(
            "names of CIFAR",
            "cifar/cifar-10-batches-py/batches.meta",
            spoil_bytes,
            "cifar10",
            *("--data-dir", "cifar"),
        ),
        _data_case(
            "archive of CIFAR",
            "packed/cifar-10-python.tar.gz",
            _unpacked,
            "cifar10",
            *("--data-dir", "packed"),
        ),
        _data_case(
            "binary CIFAR",
            "binary/cifar-10-batches-bin/data_batch_2.bin",
            spoil_bytes,
            "cifar10",
            *("--data-dir", "binary"),
        ),
        *(
            _data_case(
                f"{ending} image",
                f"images/{ending}/cat/spoilt.{ending}",
                spoil_bytes,
                f"images:images/{ending},size=8",
            )
            for ending in ("png", "jpg", "gif", "bmp", "tiff", "webp")
        ),
        _data_case("npz", "arrays.npz", spoil_bytes, "npz:arrays.npz"),
        _data_case("npy", "inputs.npy", spoil_bytes, arrays),
        _data_case("targets in npy", "labels.npy", spoil_bytes, arrays),
        _data_case("table", "table.csv", _lines, "table:table.csv,target=label"),
        _data_case("Parquet", "table.parquet", spoil_bytes, "table:table.parquet,target=label"),
        _data_case("text", "text/a.txt", spoil_bytes, "text:text,sequence=8"),
        _data_case(
            "tokenizer",
            "tokenizer.json",
            _json,
            "text:text,sequence=8,tokenizer=tokenizer.json",
        ),
    ]
