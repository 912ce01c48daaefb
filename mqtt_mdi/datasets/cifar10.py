"""CIFAR-10 (Krizhevsky, 2009) from either official archive, or from its pictures by class."""

import codecs
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.datasets.labelled import Dataset, Labelled
from mqtt_mdi.datasets.pictures import SUFFIXES, pictures, reading
from mqtt_mdi.errors import ConfigError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

_BATCH = re.compile(r"(data_batch_[1-5]|test_batch)(\.bin)?")
_PIXELS = 3 * 32 * 32
_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def cifar10(path: Path, size: int | None = None) -> Dataset:
    """Read CIFAR-10 from a folder or archive: the official one for Python or in binary, or JPEG by class.

    Pictures are (N, 3, 32, 32), or of `size` where they come by class. Raises ConfigError.
    """
    if not path.exists():
        raise ConfigError(
            f"no {path}: pass --data with the official archive of CIFAR-10 (cifar-10-python.tar.gz or "
            "cifar-10-binary.tar.gz), or with a folder or archive of its pictures by class"
        )
    batches: dict[str, Labelled] = {}
    with reading(path) as members:
        for name, data in members:
            if match := _BATCH.fullmatch(name.name):
                read = _binary if match[2] else _pickled
                batches[match[1]] = read(data, f"{path}: {name}")
            elif name.suffix.lower() in SUFFIXES:
                return pictures(path, size)
    if missing := [name for name in _BATCHES if name not in batches]:
        raise ConfigError(f"{path} lacks {', '.join(missing)}; fetch the archive again")
    *train, test = (batches[name] for name in _BATCHES)
    return Dataset(
        Labelled(
            np.concatenate([part.pictures for part in train]), np.concatenate([part.labels for part in train])
        ),
        test,
        CLASSES,
    )


def _binary(data: bytes, where: str) -> Labelled:
    if not data or len(data) % (1 + _PIXELS):
        raise ConfigError(
            f"{where} has {len(data)} bytes, no multiple of {1 + _PIXELS}; it is damaged, fetch it again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return _checked(rows[:, 1:], rows[:, 0], where)


# What arrays and byte strings are pickled as, under the names of old and new NumPy.
_REBUILD = np.empty(0).__reduce__()[0]
_PLAIN = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


class _ArraysAlone(pickle.Unpickler):
    """Unpickles what the official files are made of and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 -- the interface of pickle
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which the official files do not")
        return _PLAIN[module, name]


def _pickled(data: bytes, where: str) -> Labelled:
    try:
        batch = _ArraysAlone(io.BytesIO(data), encoding="bytes").load()
        rows, labels = np.asarray(batch[b"data"], np.uint8), np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle raises all sorts
        raise ConfigError(f"{where} is no batch of CIFAR-10: {error}; fetch it again") from error
    if rows.ndim != 2 or rows.shape[1] != _PIXELS:  # noqa: PLR2004 -- samples, pixels
        raise ConfigError(f"{where} has pixels of shape {rows.shape}, expected (N, {_PIXELS})")
    return _checked(rows, labels, where)


def _checked(rows: NDArray[np.uint8], labels: NDArray[Any], where: str) -> Labelled:
    if len(rows) != len(labels):
        raise ConfigError(f"{where} has {len(rows)} pictures and {len(labels)} labels")
    if (wrong := labels[(labels < 0) | (labels >= len(CLASSES))]).size:
        raise ConfigError(f"{where} has label {wrong[0]}, outside the {len(CLASSES)} classes")
    return Labelled(rows.reshape(-1, 3, 32, 32).copy(), labels.astype(np.int64))
