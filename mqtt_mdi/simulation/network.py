"""Links in virtual time: latency, bandwidth, jitter, loss and duplication."""

from collections.abc import Callable
from functools import cached_property
from random import Random
from typing import TypeVarTuple

from mqtt_mdi.core.system import ENVELOPE_BYTES
from mqtt_mdi.simulation.kernel import Kernel
from mqtt_mdi.simulation.scenario import Link

Given = TypeVarTuple("Given")

_MBIT_BYTES = 125_000


class Channel:
    """One direction of a link. Messages take the line one after another, then travel."""

    def __init__(self, kernel: Kernel, link: Link, seed: str) -> None:
        self.link = link
        self._kernel = kernel
        self._seed = seed
        self._free_at = 0.0

    def send(self, size: int, deliver: Callable[[*Given], None], *given: *Given) -> None:
        """Call `deliver` when a message of `size` bytes arrives: once, twice or never."""
        link = self.link
        begin = max(self._kernel.now, self._free_at)
        self._free_at = begin + (size + ENVELOPE_BYTES) / (link.bandwidth_mbit * _MBIT_BYTES)
        if link.loss and self._rng.random() < link.loss:
            return
        self._kernel.at(self._free_at + self._delay(), deliver, *given)
        if link.duplication and self._rng.random() < link.duplication:
            self._kernel.at(self._free_at + self._delay(), deliver, *given)

    def signal(self, deliver: Callable[[*Given], None], *given: *Given) -> None:
        """A message too small to take the line, behind those that have it; it may get lost, too."""
        if not (self.link.loss and self._rng.random() < self.link.loss):
            self._kernel.at(max(self._kernel.now, self._free_at) + self._delay(), deliver, *given)

    @cached_property
    def _rng(self) -> Random:
        """Made when first drawn from: most links leave nothing to chance, and there may be many."""
        return Random(self._seed)  # noqa: S311 -- a simulation

    def _delay(self) -> float:
        jitter = self._rng.expovariate(1000 / self.link.jitter_ms) if self.link.jitter_ms else 0.0
        return self.link.latency_ms / 1000 + jitter
