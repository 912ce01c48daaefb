"""Fashion-MNIST from the four official files of the IDX format."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.datasets.labelled import Dataset, Labelled
from mqtt_mdi.errors import ConfigError

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

FASHION_MNIST_DEBIAN = Path("/usr/share/datasets/fashion-mnist")

MAX_BYTES = 2**30
"""Of one file, twenty times what the official ones unpack to."""

_IDX_DIMENSIONS = {2049: 1, 2051: 3}
_IDX_WORD = 4


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one file of the MNIST family (big-endian IDX, gzip-compressed or not).

    Raises ConfigError when the file is missing, truncated or of another format.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read {path}: {error}; expected a file of the IDX format") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} unpacks to more than {MAX_BYTES:,} bytes: at most those are taken")
    dimensions = _IDX_DIMENSIONS.get(int.from_bytes(data[:_IDX_WORD], "big"))
    if dimensions is None:
        raise ConfigError(
            f"{path} begins with {data[:_IDX_WORD].hex() or 'nothing'}: expected labels (00000801) or "
            "pictures (00000803) in the IDX format"
        )
    header, body = data[_IDX_WORD : _IDX_WORD * (1 + dimensions)], data[_IDX_WORD * (1 + dimensions) :]
    shape = tuple(int(n) for n in np.frombuffer(header[: len(header) // _IDX_WORD * _IDX_WORD], ">u4"))
    if len(shape) != dimensions or len(body) != prod(shape):
        raise ConfigError(
            f"{path} holds {len(body)} values, its header promises {shape}; it is damaged, fetch it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def fashion_mnist(folder: Path = FASHION_MNIST_DEBIAN) -> Dataset:
    """Fashion-MNIST (Xiao et al., arXiv 1708.07747) from the four official files in `folder`."""
    if not folder.is_dir():
        raise ConfigError(
            f"no folder {folder}: install Debian's dataset-fashion-mnist, or pass --data with the "
            "folder of the four official files (train-images-idx3-ubyte.gz and so on)"
        )
    return Dataset(_labelled(folder, "train"), _labelled(folder, "t10k"), FASHION_MNIST_CLASSES)


def _labelled(folder: Path, part: str) -> Labelled:
    pictures = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if pictures.ndim != 3 or labels.ndim != 1:  # noqa: PLR2004 -- samples, height, width
        raise ConfigError(f"{folder}: pictures and labels of {part} are exchanged")
    if len(pictures) != len(labels) or not len(labels):
        raise ConfigError(f"{folder}: {part} has {len(pictures)} pictures and {len(labels)} labels")
    if labels.max() >= len(FASHION_MNIST_CLASSES):
        raise ConfigError(
            f"{folder}: {part} has label {labels.max()}, outside the {len(FASHION_MNIST_CLASSES)} classes"
        )
    # A copy, since torch wants arrays it may write to.
    return Labelled(pictures[:, None].copy(), labels.astype(np.int64))
