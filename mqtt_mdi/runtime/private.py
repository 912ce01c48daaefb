"""Files that hold secrets."""

import os
from pathlib import Path


def write_private(path: Path, data: bytes) -> None:
    """Write a file anew that its owner alone may read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
