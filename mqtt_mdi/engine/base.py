"""What runs a stage: from one array to an activation and the exit's answers."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


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
        """Run the stage on inputs (N, ...); raises ProtocolError for inputs it cannot take."""
        ...
