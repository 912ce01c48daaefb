"""Resident memory of devices that hold one stage of a network each, after a hundred frames."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import measure
import networks
import pipeline

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.runtime.broker_url import BrokerURL

FRAMES = 100


def memory() -> list[measure.Row]:
    """MiB for each process of a pipeline; thresholds that never pass send every frame through all stages."""
    with measure.broker() as url, tempfile.TemporaryDirectory() as folder:
        mobilenet = networks.untrained("mobilenetv2", "mobilenetv2", Path(folder, "mobilenetv2")).folder
        bundles = {"shipped": SHIPPED_BUNDLE, "mobilenetv2": mobilenet}
        return [row for name, bundle in bundles.items() for row in _pipeline(url, name, bundle, Path(folder))]


def _pipeline(url: BrokerURL, name: str, bundle: Path, folder: Path) -> Iterator[measure.Row]:
    specs = read_manifest(bundle).stages
    sizes = {f"stages {spec.index}": spec.graph_bytes / 2**20 for spec in specs}
    options = {"coordinator": ["--bundle", str(bundle)]}
    with pipeline.running_pipeline(url, name, folder, [[spec.index] for spec in specs], options) as parts:
        pipeline.set_policy(url, name, {"thresholds": [2.0] * (len(specs) - 1)})
        pipeline.stream(url, name, FRAMES)
        for process, running in parts.items():
            yield {
                "network": name,
                "process": process,
                "its graph, MiB": sizes.get(process.partition(", ")[2], ""),
                "resident, MiB": measure.resident_mib(running.pid),
            }


def main() -> None:
    """Print the table alone."""
    measure.table("Resident memory after 100 frames", memory())


if __name__ == "__main__":
    main()
