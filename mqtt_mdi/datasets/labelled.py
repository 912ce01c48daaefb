"""Labelled pictures for training: uint8 arrays in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.sample import most_sampled

FEWEST = 4
"""Training pictures: two to fit, two to hold out."""


@dataclass(frozen=True)
class Labelled:
    """Pictures (N, C, H, W) uint8 and their labels (N,) int64."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Labelled":
        """Those samples whose place in the mask (N,) is true."""
        return Labelled(self.pictures[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Dataset:
    """What is learned from, what is reported on, and the names of the classes."""

    train: Labelled
    test: Labelled
    class_names: tuple[str, ...]


def usual_hold_out(count: int) -> int:
    """How many of `count` training pictures are held out when nobody says: 2,000, at most a fifth."""
    return min(2000, max(2, count // 5))


def usual_sample(test: Labelled) -> int:
    """How many test pictures go beside a model when nobody says.

    1,000, or as many as there are or a sample takes, in equal parts of each class.
    """
    _, counts = np.unique(test.labels, return_counts=True)
    most = min(1000, most_sampled(test.pictures))
    return len(counts) * min(most // len(counts), int(counts.min()))


def hold_out(labels: NDArray[np.int64], size: int, seed: int) -> NDArray[np.bool_]:
    """Mask (N,) of `size` samples kept out of fitting, for calibration and thresholds.

    They are among those of every greater `size` with the same seed, so they can be found again without
    knowing how many samples were taken besides.
    """
    mask = np.zeros(len(labels), bool)
    mask[np.random.default_rng(seed).permutation(len(labels))[:size]] = True
    return mask
