"""A real device whose engine hands its input on: what is left is the cost of a hop."""

import hashlib
import signal
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import MANIFEST_FILE, Manifest, OperatingPoint, StageSpec, Training
from mqtt_mdi.engine.base import StageOutput
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.device import Device, DeviceSettings
from mqtt_mdi.wire.inputs import InputSpec

SHAPE = (16, 16, 16)
"""4,096 float32: activations of 16 KiB."""

PIPELINE, DEVICE, SINK = "bench", "relay", "sink"
HELD, NEXT = 2, 3
GRAPH = b"no graph: the engine hands its input on"


class PassThrough:
    """An engine that is never sure."""

    def run(self, inputs: NDArray[np.float32]) -> StageOutput:
        """Give the input back as activation, with score 0."""
        return StageOutput(inputs, np.zeros(1, np.float32), np.zeros(1, np.int64))


def write_bundle(folder: Path) -> Manifest:
    """A bundle of three stages, of which the second maps 16 KiB to 16 KiB."""
    picture = InputSpec(height=64, width=64, channels=1, mean=(0.0,), std=(1.0,))
    shapes = [picture.shape, SHAPE, SHAPE, None]
    stages = [
        StageSpec(
            index=index,
            graph=f"stage-{index}.onnx",
            sha256=hashlib.sha256(GRAPH).hexdigest(),
            input_shape=before or SHAPE,
            output_shape=after,
            macs=1,
            exit_macs=0,
            params=1,
            activation_bytes=16384 if after else 0,
            graph_bytes=len(GRAPH),
            temperature=1.0,
        )
        for index, (before, after) in enumerate(pairwise(shapes), 1)
    ]
    manifest = Manifest(
        name=PIPELINE,
        classes=("no", "yes"),
        input=picture,
        stages=tuple(stages),
        thresholds=(2.0, 2.0),
        exit_accuracy=(0.0,) * 3,
        exit_ece=(0.0,) * 3,
        operating_point=OperatingPoint(accuracy=0.0, macs_share=1.0, exits=(0.0, 0.0, 1.0)),
        trained=Training(recipe={}, dataset="none", samples=1, seed=0, version="0"),
    )
    for stage in stages:
        (folder / stage.graph).write_bytes(GRAPH)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return manifest


def main() -> None:
    """Serve stage 2 until terminated."""
    url, folder, *ca = sys.argv[1:]
    broker = BrokerURL.parse(url).with_files(Path(ca[0]) if ca else None, None, None)
    settings = DeviceSettings(broker, PIPELINE, DEVICE, frozenset({HELD}), Path(folder))
    device = Device(settings, lambda _graph, _spec: PassThrough())
    signal.signal(signal.SIGTERM, lambda _number, _frame: device.stop())
    device.serve()


if __name__ == "__main__":
    main()
