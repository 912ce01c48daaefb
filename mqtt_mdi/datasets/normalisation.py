"""From pixels to what a network takes: each channel with mean 0 and deviation 1."""

from collections.abc import Sequence
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
        return (pictures.float() / 255 - _channels(self.mean, pictures)) / _channels(self.std, pictures)

    def instead_of(self, other: "Normalisation", pictures: Tensor) -> Tensor:
        """Pictures (N, C, H, W) that `other` has normalised, normalised by this one instead."""
        scale = [had / want for had, want in zip(other.std, self.std, strict=True)]
        offset = [(had - want) / std for had, want, std in zip(other.mean, self.mean, self.std, strict=True)]
        return pictures * _channels(scale, pictures) + _channels(offset, pictures)


def _channels(values: Sequence[float], pictures: Tensor) -> Tensor:
    return torch.tensor(values, device=pictures.device).view(1, -1, 1, 1)


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
