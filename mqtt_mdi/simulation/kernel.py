"""Virtual time: a heap of things to happen, in order of time and then of asking."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Any, TypeVarTuple

Given = TypeVarTuple("Given")


class Kernel:
    """The clock of a simulated world, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, time: float, action: Callable[[*Given], None], *given: *Given) -> None:
        """Do something with what is given at a time, not before now."""
        self._serial += 1
        heappush(self._heap, (max(time, self.now), self._serial, action, given))

    def after(self, delay: float, action: Callable[[*Given], None], *given: *Given) -> None:
        """Do something with what is given `delay` seconds from now."""
        self.at(self.now + delay, action, *given)

    def run(self, until: float, stop: Callable[[], bool]) -> None:
        """Let things happen until a time, or until `stop` after one of them, or until nothing is left."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, given = heappop(heap)
            self.events += 1
            action(*given)
            if stop():
                return


@contextmanager
def without_collector() -> Iterator[None]:
    """Leave memory to reference counts: machines make no cycles, and looking for some costs a quarter."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
