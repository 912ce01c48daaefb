"""How long stages take, measured side by side so that a busy machine slows all alike."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.errors import ConfigError


def stage_times(folders: Sequence[Path], rounds: int) -> NDArray[np.float64]:
    """Seconds of each stage of some bundles for one sample on one thread: (rounds, bundles, stages).

    Each round runs every bundle once, another one first each time. Raises ConfigError for bundles of
    different networks, BundleError for damaged ones.
    """
    manifests = [read_manifest(folder) for folder in folders]
    if len({(manifest.stage_count, manifest.input.shape) for manifest in manifests}) != 1:
        raise ConfigError("these bundles differ in their input or number of stages: nothing to compare")
    bundles = [
        [OnnxStage(read_stage(folder, spec), spec) for spec in manifest.stages]
        for folder, manifest in zip(folders, manifests, strict=True)
    ]
    frame = np.random.default_rng(1).normal(size=(1, *manifests[0].input.shape)).astype(np.float32)
    times = np.empty((rounds, len(bundles), manifests[0].stage_count))
    for number, taken in enumerate(times):
        for place in range(number, number + len(bundles)):
            engines, spent = bundles[place % len(bundles)], taken[place % len(bundles)]
            values = frame
            for index, engine in enumerate(engines):
                start = perf_counter()
                output = engine.run(values)
                spent[index] = perf_counter() - start
                if output.activation is not None:
                    values = output.activation
    return times
