"""What a stage would have said and taken: exit traces replayed, multiply-adds turned into time."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.bundle.trace import ExitTrace
from mqtt_mdi.core.system import ENVELOPE_BYTES, StageProfile
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
    profiles: tuple[StageProfile, ...]
    sizes: list[int]
    thresholds: tuple[float, ...]

    def with_frames_of(self, size: int | None) -> Self:
        """The same network where frames have so many bytes on their way, unless it is None."""
        if size is None:
            return self
        first = replace(self.profiles[0], input_bytes=size + ENVELOPE_BYTES)
        return replace(self, profiles=(first, *self.profiles[1:]))

    @property
    def stage_count(self) -> int:
        """How many stages there are."""
        return len(self.profiles)

    def answer(self, frame_id: str, stage: int) -> tuple[int, float]:
        """The label and score that a stage's exit gives a frame; frames are numbered, samples repeat."""
        sample = int(frame_id) % len(self.truth)
        return self.labels[sample][stage - 1], self.scores[sample][stage - 1]

    def truth_of(self, frame_id: str) -> int:
        """The right label of a frame."""
        return self.truth[int(frame_id) % len(self.truth)]


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
        manifest.profiles,
        [stage.activation_bytes for stage in manifest.stages],
        manifest.thresholds,
    )
