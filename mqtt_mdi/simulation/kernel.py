"""Virtual time: a heap of things to happen, in order of time and then of asking."""

from collections.abc import Callable
from heapq import heappop, heappush

Action = Callable[[], None]


class Kernel:
    """The clock of a simulated world, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Action]] = []
        self._serial = 0

    def at(self, time: float, action: Action) -> None:
        """Do something at a time, not before now."""
        self._serial += 1
        heappush(self._heap, (max(time, self.now), self._serial, action))

    def after(self, delay: float, action: Action) -> None:
        """Do something `delay` seconds from now."""
        self.at(self.now + delay, action)

    def run(self, until: float, stop: Callable[[], bool]) -> None:
        """Let things happen until a time, or until `stop` after one of them, or until nothing is left."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heappop(self._heap)
            self.events += 1
            action()
            if stop():
                return
