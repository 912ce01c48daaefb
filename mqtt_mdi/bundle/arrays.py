"""Named arrays in one compressed .npz file, read without unpickling anything.

Limits are checked before bytes are: what an array takes, not what its file does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.errors import BundleError
from mqtt_mdi.wire.frames import decode_npy

MAX_FILE_BYTES = 64 * 2**20
MAX_ARRAY_BYTES = 256 * 2**20


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays to a compressed .npz file."""
    np.savez_compressed(path, allow_pickle=False, **arrays)


def read_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Read the named arrays in order; raises BundleError when the file is missing or damaged."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")  # noqa: TRY301 -- said with the others
        with ZipFile(path) as stored:
            return [decode_npy(_read(stored, f"{name}.npy")) for name in names]
    except Exception as error:  # damaged files raise a dozen unrelated types
        raise BundleError(
            f"cannot read {path}: {error}; expected an .npz file with {', '.join(names)}; "
            "rebuild or fetch the bundle again"
        ) from error


def _read(stored: ZipFile, name: str) -> bytes:
    part = stored.getinfo(name)
    if part.file_size > MAX_ARRAY_BYTES or part.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name} has {part.file_size} bytes, at most {MAX_ARRAY_BYTES} deflated are taken")
    with stored.open(part) as file:
        # One more than announced: a part that inflates to more must not be read to its end.
        return file.read(part.file_size + 1)
