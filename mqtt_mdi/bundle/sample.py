"""A few labelled test pictures beside the model, to try a pipeline without any data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.arrays import MAX_FILE_BYTES, read_arrays, write_arrays
from mqtt_mdi.errors import BundleError, ConfigError

SAMPLE_FILE = "sample.npz"
_MOST_BYTES = MAX_FILE_BYTES - 2**20
"""Of pictures that cannot be compressed at all; what stands beside them takes little."""


@dataclass(frozen=True)
class Sample:
    """Pictures (N, H, W) or (N, H, W, 3) uint8, labels (N,) and places in the test set (N,).

    `indices` are rows of the bundle's exit trace, too.
    """

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int16]
    indices: NDArray[np.int32]

    def __post_init__(self) -> None:
        count = len(self.pictures)
        if (
            self.pictures.ndim not in (3, 4)
            or self.pictures.shape[3:] not in ((), (3,))
            or 0 in self.pictures.shape
            or self.labels.shape != (count,)
            or self.indices.shape != (count,)
        ):
            raise BundleError(
                f"sample has pictures of shape {self.pictures.shape}, labels {self.labels.shape} and "
                f"indices {self.indices.shape}: they do not belong together, or are none"
            )


def most_sampled(pictures: NDArray[np.uint8]) -> int:
    """How many pictures like these, (N, C, H, W), a sample takes: their file is to be read again."""
    return _MOST_BYTES // int(pictures[0].nbytes)


def draw_sample(pictures: NDArray[np.uint8], labels: NDArray[Any], size: int, seed: int) -> Sample:
    """Draw `size` of the pictures (N, C, H, W) at random, as many of each class, in random order.

    Raises ConfigError when a class has too few pictures, `size` is no multiple of the classes, or more
    than a sample takes.
    """
    if size > (most := most_sampled(pictures)):
        raise ConfigError(
            f"--sample {size}: of pictures as large as these a sample takes {most}; choose fewer"
        )
    generator = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    each, rest = divmod(size, len(classes))
    if rest or each > counts.min():
        raise ConfigError(
            f"--sample {size} cannot be drawn evenly: {len(classes)} classes have {counts.min()} test "
            f"pictures or more each; choose a multiple of {len(classes)} up to "
            f"{len(classes) * counts.min()}, or 0"
        )
    drawn = [generator.choice(np.flatnonzero(labels == c), each, replace=False) for c in classes]
    indices = generator.permutation(np.concatenate(drawn))
    chosen = pictures[indices]
    chosen = chosen[:, 0] if chosen.shape[1] == 1 else chosen.transpose(0, 2, 3, 1)
    return Sample(chosen, labels[indices].astype(np.int16), indices.astype(np.int32))


def write_sample(sample: Sample, folder: Path) -> None:
    """Write a sample into a bundle folder."""
    write_arrays(folder / SAMPLE_FILE, pictures=sample.pictures, labels=sample.labels, indices=sample.indices)


def read_sample(folder: Path) -> Sample:
    """Read the sample of a bundle folder; raises BundleError when it is missing or damaged."""
    path = folder / SAMPLE_FILE
    pictures, labels, indices = read_arrays(path, ("pictures", "labels", "indices"))
    if pictures.dtype != np.uint8 or labels.dtype.kind not in "ui" or indices.dtype.kind not in "ui":
        raise BundleError(
            f"{path} holds pictures of {pictures.dtype}, labels of {labels.dtype} and indices of "
            f"{indices.dtype}: expected uint8 and integers"
        )
    return Sample(pictures, labels.astype(np.int16), indices.astype(np.int32))
