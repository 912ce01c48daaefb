import mmap
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mqtt_mdi.engine import memory
from mqtt_mdi.engine.memory import _untouched_programs, give_memory_back

SMAPS = """\
00400000-00500000 r-xp 00000000 fe:00 17                         /usr/lib/clean one.so
Rss:                 900 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00600000-00700000 r-xp 00000000 fe:00 18                         /usr/lib/relocated.so
Rss:                 900 kB
Anonymous:             4 kB
00800000-00900000 rw-p 00000000 fe:00 17                         /usr/lib/data.so
Anonymous:             0 kB
00a00000-00b00000 r-xp 00000000 00:00 0
Anonymous:             0 kB
00c00000-00d00000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
"""


def test_pages_that_have_no_copy_elsewhere_are_kept() -> None:
    assert list(_untouched_programs(SMAPS)) == [(0x400000, 0x100000)]


def rss_of_programs() -> int:
    spans = set(_untouched_programs(Path("/proc/self/smaps").read_text()))
    resident, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            start, end = (int(address, 16) for address in first.split("-"))
            counts = (start, end - start) in spans
        elif counts and first == "Rss:":
            resident += int(rest[0]) * 1024
    return resident


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc/self/smaps: not Linux")
def test_programs_become_smaller_and_run_on() -> None:
    with mmap.mmap(-1, 2**16) as ours:
        ours.write(b"kept")
        before = rss_of_programs()
        give_memory_back()
        assert rss_of_programs() < before
        assert ours[:4] == b"kept"


def test_where_nothing_can_be_asked_for_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "Path", lambda _: Path("/nowhere"))
    give_memory_back()


HEAPS = """
import ctypes, sys, threading
from mqtt_mdi.engine.memory import share_one_heap
if "shared" in sys.argv:
    share_one_heap()
library = ctypes.CDLL(None)
thread = threading.Thread(target=library.malloc, args=(100_000,))
thread.start()
thread.join()
library.malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has several heaps")
@pytest.mark.parametrize(("words", "heaps"), [([], 2), (["shared"], 1)])
def test_threads_share_one_heap_when_asked_to(words: list[str], heaps: int) -> None:
    ran = subprocess.run([sys.executable, "-c", HEAPS, *words], capture_output=True, check=True)
    assert ran.stderr.count(b"Arena ") == heaps
