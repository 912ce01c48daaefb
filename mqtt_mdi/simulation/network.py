"""Links in virtual time: latency, bandwidth, jitter, loss and duplication."""

from collections.abc import Callable
from random import Random

from mqtt_mdi.simulation.kernel import Kernel
from mqtt_mdi.simulation.scenario import Link

ENVELOPE_BYTES = 200
"""What a task's fields and MQTT add to its input."""

_MBIT_BYTES = 125_000


class Channel:
    """One direction of a link. Messages take the line one after another, then travel."""

    def __init__(self, kernel: Kernel, link: Link, rng: Random) -> None:
        self.link = link
        self._kernel = kernel
        self._rng = rng
        self._free_at = 0.0

    def send(self, size: int, deliver: Callable[[], None]) -> None:
        """Call `deliver` when a message of `size` bytes arrives: once, twice or never."""
        link = self.link
        begin = max(self._kernel.now, self._free_at)
        self._free_at = begin + (size + ENVELOPE_BYTES) / (link.bandwidth_mbit * _MBIT_BYTES)
        if link.loss and self._rng.random() < link.loss:
            return
        self._kernel.at(self._free_at + self._delay(), deliver)
        if link.duplication and self._rng.random() < link.duplication:
            self._kernel.at(self._free_at + self._delay(), deliver)

    def signal(self, deliver: Callable[[], None]) -> None:
        """A message too small to count against bandwidth; it may get lost, too."""
        if not (self.link.loss and self._rng.random() < self.link.loss):
            self._kernel.after(self._delay(), deliver)

    def _delay(self) -> float:
        jitter = self._rng.expovariate(1000 / self.link.jitter_ms) if self.link.jitter_ms else 0.0
        return self.link.latency_ms / 1000 + jitter
