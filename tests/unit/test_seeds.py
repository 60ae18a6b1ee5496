"""Seeds reach to 2**63 - 1; below 2**32 they give what they always gave."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.results import load_results, write_tables
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.data.dataset import epoch_order
from hpc_lpm.options import MAX_SEED
from hpc_lpm.random_streams import torch_seed


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31, 2**32 - 1])
def test_small_seeds_give_the_order_that_they_always_gave(seed: int) -> None:
    for epoch in (0, 5):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        assert (
            epoch_order(50, seed, epoch).tolist()
            == torch.randperm(50, generator=generator).tolist()
        )


def test_seeds_and_places_are_kept_apart_over_the_whole_range() -> None:
    seeds = [0, 1, 2**32 - 1, 2**32, 2**40, 2**53 + 1, 2**62, MAX_SEED - 1, MAX_SEED]
    found = [torch_seed(seed, place) for seed, place in product(seeds, range(200))]
    assert len(set(found)) == len(found)
    assert all(0 <= seed <= MAX_SEED for seed in found)


def test_a_run_takes_the_largest_seed_and_no_larger_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpc_lpm.cli.app import app

    command = ["train", "--model", "mlp", "--dataset", "digits", "--strategy", "sequential"]
    register(command)
    weights = set()
    for seed in (MAX_SEED, MAX_SEED - 1, 2**32):
        out = tmp_path / str(seed)
        arguments = [*command, "--steps", "1", "--seed", str(seed), "--out", str(out)]
        assert run_guarded(app, arguments) == 0, capsys.readouterr().err
        result = json.loads((out / "result.json").read_text())
        assert result["seed"] == seed
        weights.add(result["weights_sha256"])
    assert len(weights) == 3
    capsys.readouterr()
    for seed in (str(2**63), "-1", "1.5"):
        assert run_guarded(app, [*command, "--seed", seed, "--out", str(tmp_path / "o")]) == 2
        assert "seed" in capsys.readouterr().err


def test_tables_hold_large_seeds_as_they_are(tmp_path: Path) -> None:
    seeds = [MAX_SEED, MAX_SEED - 1]
    folder = write_folder(tmp_path / "c", campaign(strategies=["fbp"], seeds=seeds, repeats=1))
    results = load_results(folder.root)
    write_tables(results)
    assert sorted(results.summary["seed"], reverse=True) == seeds
    assert all(str(seed) in (folder.root / "summary.csv").read_text() for seed in seeds)
