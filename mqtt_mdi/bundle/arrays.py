"""Named arrays in one compressed .npz file, read without unpickling anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.errors import BundleError


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays to a compressed .npz file."""
    np.savez_compressed(path, allow_pickle=False, **arrays)


def read_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Read the named arrays in order; raises BundleError when the file is missing or damaged."""
    try:
        # Opened here, since numpy leaves files open that turn out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except Exception as error:  # damaged files raise a dozen unrelated types
        raise BundleError(
            f"cannot read {path}: {error}; expected an .npz file with {', '.join(names)}; "
            "rebuild or fetch the bundle again"
        ) from error
