"""What runs a stage: from one array to an activation and the exit's answers."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import StageSpec
from mqtt_mdi.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a stage makes of N samples.

    `activation` (N, ...) is the next stage's input, None after the last stage; `scores` (N,) float32 say how
    sure the exit is, higher is surer; `labels` (N,) int64 are its answers.
    """

    activation: NDArray[Any] | None
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Engine(Protocol):
    """One loaded stage."""

    def run(self, inputs: NDArray[Any]) -> StageOutput:
        """Run the stage on inputs (N, ...) of the type and shape in the manifest.

        Raises ProtocolError for another shape or type, for values that are not finite, and for values
        so large that the exit's score is not.
        """
        ...


def check_inputs(inputs: NDArray[Any], spec: StageSpec) -> None:
    """Raise ProtocolError unless the stage of `spec` can take `inputs`."""
    if inputs.dtype.name != spec.input_type or inputs.shape[1:] != spec.input_shape or not len(inputs):
        raise ProtocolError(
            f"input of stage {spec.index}: got {inputs.dtype} of shape {inputs.shape}, expected "
            f"{spec.input_type} of shape (samples, {', '.join(map(str, spec.input_shape))})"
        )
    if not np.isfinite(inputs).all():
        raise ProtocolError(f"input of stage {spec.index}: got NaN or infinite values, expected finite ones")


def check_scores(scores: NDArray[np.float32], inputs: NDArray[Any], spec: StageSpec) -> None:
    """Raise ProtocolError for scores that are not finite."""
    if not np.isfinite(scores).all():
        raise ProtocolError(
            f"input of stage {spec.index}: got values up to {np.abs(inputs).max():g}, expected ones that "
            "give a finite score"
        )
