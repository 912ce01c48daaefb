"""The data sets that can be trained on by name; one a file."""

from collections.abc import Callable
from pathlib import Path

from mqtt_mdi.datasets.cifar10 import cifar10
from mqtt_mdi.datasets.fashion_mnist import FASHION_MNIST_DEBIAN, fashion_mnist
from mqtt_mdi.datasets.labelled import Dataset
from mqtt_mdi.datasets.pictures import pictures
from mqtt_mdi.errors import ConfigError

DATASETS: dict[str, Callable[[Path, int | None], Dataset]] = {
    "fashion-mnist": lambda path, _: fashion_mnist(path),
    "cifar10": cifar10,
    "pictures": pictures,
}
"""Path, and the size pictures of other sizes are scaled to, to a data set."""


def read_dataset(name: str, path: Path | None, size: int | None) -> Dataset:
    """Read a data set by name; raises ConfigError for a wrong name, path or content."""
    if name not in DATASETS:
        raise ConfigError(f"no data set {name!r}; known: {', '.join(sorted(DATASETS))}")
    if path is None and name != "fashion-mnist":
        raise ConfigError(f"--data is missing: the folder or archive of {name}")
    dataset = DATASETS[name](path or FASHION_MNIST_DEBIAN, size)
    height, width = dataset.train.pictures.shape[2:]
    if size is not None and size != min(height, width):
        raise ConfigError(
            f"{name} has pictures of {width}x{height}, which are not scaled to {size}: that is done with "
            "pictures by class alone"
        )
    return dataset
