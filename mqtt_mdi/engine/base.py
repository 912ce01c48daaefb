"""What runs a stage: from one array to an activation and the exit's answers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a stage makes of N samples.

    `activation` (N, C, H, W) float32 is the next stage's input, None after the last stage; `scores`
    (N,) float32 say how sure the exit is, higher is surer; `labels` (N,) int64 are its answers.
    """

    activation: NDArray[np.float32] | None
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Engine(Protocol):
    """One loaded stage."""

    def run(self, inputs: NDArray[np.float32]) -> StageOutput:
        """Run the stage on inputs (N, C, H, W); raises ProtocolError for inputs it cannot take."""
        ...
