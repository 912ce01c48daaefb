"""What a stage would have said and taken: exit traces replayed, multiply-adds turned into time."""

from dataclasses import dataclass

import numpy as np

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.bundle.trace import ExitTrace
from mqtt_mdi.errors import ConfigError


@dataclass(frozen=True)
class Network:
    """A trained network as the simulator knows it, each list by stage from the first.

    `scores[i][k]` and `labels[i][k]` are exit k + 1's answer to sample i; `sizes[k]` the bytes of the
    activation after stage k + 1.
    """

    scores: list[list[float]]
    labels: list[list[int]]
    truth: list[int]
    macs: list[int]
    sizes: list[int]
    thresholds: tuple[float, ...]

    @property
    def stage_count(self) -> int:
        """How many stages there are."""
        return len(self.macs)


def network_of(manifest: Manifest, trace: ExitTrace, seed: int | None) -> Network:
    """Join a bundle's profile and trace; samples are shuffled by `seed`, or left in order without one.

    Raises ConfigError when the trace is of another network.
    """
    if trace.exits != manifest.stage_count:
        raise ConfigError(
            f"the trace has {trace.exits} exits, bundle {manifest.name} has {manifest.stage_count}: "
            "they do not belong together"
        )
    order = np.arange(len(trace.truth))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    return Network(
        trace.score[order].tolist(),
        trace.label[order].tolist(),
        trace.truth[order].tolist(),
        [stage.macs for stage in manifest.stages],
        [stage.activation_bytes for stage in manifest.stages],
        manifest.thresholds,
    )
