"""A chain of emulated boards, one stage each: answers a second beside what the slowest stage could do."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import measure
import networks
import pipeline

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.models.mobilenetv2 import MobileNetV2, MobileNetV2Config
from mqtt_mdi.runtime.broker_url import BrokerURL

FRAMES = 250
STAGE_S = 0.04
"""What a stage takes, so long that the machine's two cores hardly notice the work behind it."""

CUTS = {2: (6,), 3: (3, 10), 5: (3, 6, 10, 13)}
"""Devices, and the blocks of MobileNetV2 after which stages end."""


def chain(rounds: int = 5) -> list[measure.Row]:
    """Chains whose stages take alike, and chains whose middle stage takes twice as long as the others."""
    rows: list[measure.Row] = []
    with measure.broker() as url, tempfile.TemporaryDirectory() as folder:
        for devices, cuts in CUTS.items():
            bundle = Path(folder, f"{devices}")
            network = MobileNetV2(MobileNetV2Config(cuts=cuts))
            networks.export_untrained("chain", network, bundle, {"cuts": ",".join(map(str, cuts))})
            for shape, middle in (("alike", 1.0), ("one twice as long", 2.0)):
                seconds = [STAGE_S] * devices
                seconds[devices // 2] *= middle
                rate = _rate(url, f"chain-{devices}-{middle:.0f}", bundle, seconds, rounds)
                rows.append(
                    {
                        "devices": devices,
                        "stages": shape,
                        "slowest stage, frames/s": 1 / max(seconds),
                        "answers/s": rate,
                        "efficiency": rate * max(seconds),
                    }
                )
    return rows


def _rate(url: BrokerURL, name: str, bundle: Path, seconds: Sequence[float], rounds: int) -> float:
    """The median of some rounds' rates; no frame leaves before the last stage."""
    specs = read_manifest(bundle).stages
    options = {"coordinator": ["--bundle", str(bundle)]}
    for spec, taken in zip(specs, seconds, strict=True):
        options[f"device-{spec.index}, stages {spec.index}"] = ["--emulate", str(spec.macs / taken)]
    stages = [[spec.index] for spec in specs]
    with pipeline.running_pipeline(url, name, bundle.parent, stages, options):
        pipeline.set_policy(url, name, {"strategy": "no-exit"})
        return median(_round(url, name) for _ in range(rounds))


def _round(url: BrokerURL, name: str) -> float:
    """Answers a second, from the first to the last."""
    times: list[float] = []
    pipeline.stream(url, name, FRAMES, heard=lambda: times.append(time.monotonic()))
    return (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    """Print the table alone."""
    measure.table("Chains of emulated boards", chain())


if __name__ == "__main__":
    main()
