"""From pixels to what a network takes: each channel with mean 0 and deviation 1."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mqtt_mdi.errors import ConfigError


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixel values in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pictures: Tensor) -> Tensor:
        """Map (N, C, H, W) uint8 to normalised float32."""
        mean = torch.tensor(self.mean, device=pictures.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pictures.device).view(1, -1, 1, 1)
        return (pictures.float() / 255 - mean) / std


def normalisation(pictures: NDArray[np.uint8]) -> Normalisation:
    """Measure the normalisation of a training set (N, C, H, W).

    Raises ConfigError when all pixels of a channel are alike.
    """
    scaled = pictures.astype(np.float32) / 255
    mean, std = ([round(float(v), 4) for v in f(scaled, (0, 2, 3))] for f in (np.mean, np.std))
    if min(std) <= 0:
        raise ConfigError(f"the training pictures show nothing: their channels deviate by {std}")
    return Normalisation(tuple(mean), tuple(std))
