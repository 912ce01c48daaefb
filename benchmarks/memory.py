"""Resident memory of devices that hold one stage of the shipped network each, after a hundred frames."""

import tempfile
from pathlib import Path

import measure
import pipeline

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest

FRAMES = 100


def memory() -> list[measure.Row]:
    """MiB for each process of a pipeline; thresholds that never pass send every frame through all stages."""
    stages = read_manifest(SHIPPED_BUNDLE).stage_count
    with measure.broker() as url, tempfile.TemporaryDirectory() as folder:
        devices = [[stage] for stage in range(1, stages + 1)]
        with pipeline.running_pipeline(url, "memory", Path(folder), devices) as parts:
            pipeline.set_policy(url, "memory", {"thresholds": [2.0] * (stages - 1)})
            pipeline.stream(url, "memory", FRAMES)
            return [
                {"process": name, "resident, MiB": measure.resident_mib(process.pid)}
                for name, process in parts.items()
            ]


def main() -> None:
    """Print the table alone."""
    measure.table("Resident memory after 100 frames", memory())


if __name__ == "__main__":
    main()
