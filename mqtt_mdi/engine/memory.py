"""Less memory for a process that loads graphs, where the C library can be asked for that."""

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_M_ARENA_MAX = -8
"""The parameter's number in glibc's malloc.h."""


def share_one_heap() -> None:
    """Have threads take memory from one heap from now on, so that each reuses what others freed.

    glibc gives each new thread one of its own; other C libraries have no such setting.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_memory_back() -> None:
    """Return what the C library holds free, up to 19 MiB, and pages of programs, which come back when run.

    Starting runs through some 16 MiB of programs that are not run again, half of them ONNX Runtime's. The
    system keeps copies of them for as long as it has room.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        for start, size in _untouched_programs(Path("/proc/self/smaps").read_text()):
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def _untouched_programs(smaps: str) -> Iterator[tuple[int, int]]:
    """Start and size of mappings that are run, and are in memory as they are in their file (proc(5))."""
    span, runs = "", False
    for line in smaps.splitlines():
        first, *rest = line.split(maxsplit=5)
        if not first.endswith(":"):
            span, runs = first, rest[0] == "r-xp" and rest[-1].startswith("/")
        elif runs and first == "Anonymous:" and rest[0] == "0":
            start, end = (int(address, 16) for address in span.split("-"))
            yield start, end - start
