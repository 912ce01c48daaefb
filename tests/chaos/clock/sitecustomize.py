"""Lets the wall clock of a process jump: seconds to add stand in the file that MDI_CHAOS_CLOCK names."""

import os
import time
from pathlib import Path

_path = os.environ.get("MDI_CHAOS_CLOCK")
_real = time.time


def _ahead() -> float:
    try:
        return float(Path(_path or "").read_text())
    except (OSError, ValueError):
        return 0.0


if _path:
    time.time = lambda: _real() + _ahead()
    time.time_ns = lambda: int((_real() + _ahead()) * 1e9)
