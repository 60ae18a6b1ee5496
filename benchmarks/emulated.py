"""FBP on 8 and 16 emulated devices: real ranks, messages and schedules, sleeping layers.

    python -m benchmarks.emulated [--repeats 6] [--out FOLDER]

Each device is one layer that takes 10 ms forward and 20 ms backward (20 and 40 ms on 16 devices)
and sends 100 kB. The *devices' rate* is K times that of one device, a micro-batch every 30 (60) ms;
1F1B gets M / (M + K - 1) of it. Rates are those of steady state, as in `benchmarks.engine`.
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.race import Contestant, markdown, median, race, shown
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.make import price_plan
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.profiling.profile import LayerProfile, LinkProfile, Profile

MESSAGE_BYTES = 100_000
MICRO_BATCH, MICRO_BATCHES, STEPS = 2, 8, 16
DEVICES = {8: (0.010, 0.020), 16: (0.020, 0.040)}
"""Seconds of the forward and of the backward pass of each device, by their number.

Two cores serve all ranks: twice as many get twice the time, so that the cores are as busy.
"""
CONTESTANTS = (("fbp", 1), ("fbp", 2), ("deepspeed-1f1b", 1))


def run(devices: int, folder: Path, repeats: int) -> pd.DataFrame:
    """Race on so many devices; the column `share` is the part of their rate that was reached."""
    forward_seconds, backward_seconds = DEVICES[devices]
    layer = LayerProfile(
        name="device",
        forward_seconds=forward_seconds,
        backward_seconds=backward_seconds,
        output_bytes=MESSAGE_BYTES,
        parameter_bytes=4,
        activation_bytes=0,
    )
    link = LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9)
    profile = Profile(
        model="emulated",
        micro_batch=MICRO_BATCH,
        device="cpu",
        dtype="float32",
        layers=(layer,) * devices,
        link=link,
    )
    path = folder / f"profile-emulated-{devices}.json"
    profile.write(path)
    plan = folder / f"plan-emulated-{devices}.json"
    cost = CostModel(profile, devices, PlanOptions(weights="live"))
    price_plan(cost, tuple(range(devices + 1)), "one layer a device", "").write(plan)
    contestants = [
        Contestant(
            f"{strategy}, lead {lead}" if strategy == "fbp" else strategy,
            {
                "model": f"replay:{path}",
                "dataset": f"synthetic,samples={2 * MICRO_BATCH * MICRO_BATCHES * STEPS}",
                "strategy": strategy,
                "plan": str(plan),
                "batch_size": MICRO_BATCH * MICRO_BATCHES,
                "micro_batches": MICRO_BATCHES,
                "steps": STEPS,
                "weights": "live",
                "lead": lead,
            },
        )
        for strategy, lead in CONTESTANTS
    ]
    rows = race(contestants, devices, repeats)
    full = MICRO_BATCH / (forward_seconds + backward_seconds)
    return rows.assign(devices=devices, share=rows["samples_per_second"] / full)


def report(rows: pd.DataFrame) -> str:
    """Return the table in Markdown."""
    lines = []
    for (devices, label), group in rows.groupby(["devices", "label"], sort=False):
        share = median(group, str(label), "share")
        ideal = (
            1.0
            if str(label).startswith("fbp")
            else MICRO_BATCHES / (MICRO_BATCHES + int(devices) - 1)
        )
        cells = [str(devices), str(label), shown(share), f"{ideal:.3f}", str(share.n)]
        lines.append(cells)
    columns = ["devices", "contestant", "share of the devices' rate", "of its schedule", "n"]
    return markdown(columns, lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("results/reference/engine"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([run(devices, arguments.out, arguments.repeats) for devices in DEVICES])
    rows.drop(columns="milliseconds_by_kind").to_csv(arguments.out / "emulated.csv", index=False)
    text = report(rows)
    (arguments.out / "emulated.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
