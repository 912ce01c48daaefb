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
    levels = np.arange(256) / 255
    channels = pictures.swapaxes(0, 1)
    # Counted, for a sum of millions of pixels in float32 stops growing at 2 to the 24th.
    shares = [np.bincount(channel.ravel(), minlength=256) / channel.size for channel in channels]
    mean = [round(float(share @ levels), 4) for share in shares]
    std = [round(float(np.sqrt(share @ (levels - share @ levels) ** 2)), 4) for share in shares]
    if min(std) <= 0:
        raise ConfigError(f"the training pictures show nothing: their channels deviate by {std}")
    return Normalisation(tuple(mean), tuple(std))
