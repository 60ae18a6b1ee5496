"""Measures FBP on 8 and 16 emulated devices: real ranks and messages, layers that sleep.

    python -m benchmarks.emulated [--repeats 6] [--out FOLDER]

Each device is one layer that sleeps for its forward and its backward pass and sends 100 kB. At the
*devices' rate* a micro-batch is finished in every forward + backward, K times as fast as one device
would train; 1F1B reaches M / (M + K - 1) of it. Rates are measured in steady state, as in
`benchmarks.engine`. The loss per micro-batch is about the same number of milliseconds however long
a device computes, because two cores run the Python of all ranks; short and long passes side by side
show that.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.race import Contestant, markdown, median, race, shown
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

MESSAGE_BYTES = 100_000
MICRO_BATCH, MICRO_BATCHES = 2, 8


@dataclass(frozen=True)
class Emulation:
    """A number of devices, the seconds of their forward and backward passes, and the steps."""

    devices: int
    forward_seconds: float
    backward_seconds: float
    steps: int

    @property
    def name(self) -> str:
        """Return the name for files, such as `8-30ms`: devices and milliseconds of both passes."""
        return f"{self.devices}-{round(1e3 * self.period_seconds)}ms"

    @property
    def period_seconds(self) -> float:
        """Return the seconds per micro-batch if no device ever waits."""
        return self.forward_seconds + self.backward_seconds


EMULATIONS = (
    Emulation(8, 0.010, 0.020, steps=16),
    Emulation(8, 0.030, 0.060, steps=10),
    Emulation(16, 0.060, 0.120, steps=8),
)
CONTESTANTS = (("fbp", 1), ("fbp", 2), ("deepspeed-1f1b", 1))


def run(emulation: Emulation, folder: Path, repeats: int) -> pd.DataFrame:
    """Race the contestants on one emulation and return one row per training.

    `share` is the part of the devices' rate that was reached, and `lost_milliseconds` the time by
    which a micro-batch took longer than its passes.
    """
    devices = emulation.devices
    layer = LayerProfile(
        name="device",
        forward_seconds=emulation.forward_seconds,
        backward_seconds=emulation.backward_seconds,
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
    path = folder / f"profile-emulated-{emulation.name}.json"
    profile.write(path)
    plan = folder / f"plan-emulated-{emulation.name}.json"
    cost = CostModel(profile, devices, PlanOptions(weights="live"))
    price_plan(cost, tuple(range(devices + 1)), "one layer a device", "").write(plan)
    contestants = [
        Contestant(
            f"{strategy}, lead {lead}" if strategy == "fbp" else strategy,
            {
                "model": f"replay:{path}",
                "dataset": f"synthetic,samples={2 * MICRO_BATCH * MICRO_BATCHES * emulation.steps}",
                "strategy": strategy,
                "plan": str(plan),
                "batch_size": MICRO_BATCH * MICRO_BATCHES,
                "micro_batches": MICRO_BATCHES,
                "steps": emulation.steps,
                **({"weights": "live", "lead": lead} if strategy == "fbp" else {}),
            },
        )
        for strategy, lead in CONTESTANTS
    ]
    rows = race(contestants, devices, repeats)
    took = MICRO_BATCH / rows["samples_per_second"]
    return rows.assign(
        devices=devices,
        device_milliseconds=1e3 * emulation.period_seconds,
        share=emulation.period_seconds / took,
        lost_milliseconds=1e3 * (took - emulation.period_seconds),
    )


def report(rows: pd.DataFrame) -> str:
    """Return the table in Markdown."""
    lines = []
    emulated = ["devices", "device_milliseconds", "label"]
    for (devices, milliseconds, label), group in rows.groupby(emulated, sort=False):
        share = median(group, str(label), "share")
        lost = median(group, str(label), "lost_milliseconds")
        ideal = (
            1.0
            if str(label).startswith("fbp")
            else MICRO_BATCHES / (MICRO_BATCHES + int(devices) - 1)
        )
        cells = [str(devices), f"{milliseconds:.0f}", str(label), shown(share), f"{ideal:.3f}"]
        lines.append([*cells, shown(lost, 1), str(share.n)])
    columns = ["devices", "passes, ms", "contestant", "share of the devices' rate"]
    return markdown([*columns, "of its schedule", "lost a micro-batch, ms", "n"], lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("results/reference/engine"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([run(emulation, arguments.out, arguments.repeats) for emulation in EMULATIONS])
    rows.drop(columns="milliseconds_by_kind").to_csv(arguments.out / "emulated.csv", index=False)
    text = report(rows)
    (arguments.out / "emulated.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
