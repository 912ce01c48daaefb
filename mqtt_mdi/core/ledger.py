"""The source's books: what was admitted is answered, failed or still owed."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a stage on a fast machine to a frame that went through several leases."""


@dataclass(slots=True)
class Ledger:
    """Counts of frames since the source started."""

    admitted: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    retried: int = 0
    duplicates: int = 0

    def check(self, outstanding: int) -> None:
        """The invariant: admitted = answered + failed + outstanding."""
        assert self.admitted == self.answered + self.failed + outstanding, f"{self} with {outstanding} owed"

    def counters(self) -> dict[str, int]:
        """The books by name, for the state message."""
        return {
            "admitted": self.admitted,
            "answered": self.answered,
            "failed": self.failed,
            "refused": self.refused,
            "retried": self.retried,
            "duplicates": self.duplicates,
        }


@dataclass(slots=True)
class Tally:
    """What the coordinator counts, for one window or for good."""

    answered: int = 0
    failed: int = 0
    duplicates: int = 0
    graded: int = 0
    correct: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Latencies:
    """How many latencies each of LATENCY_BOUNDS_S is the least bound of, and how many lie beyond all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, latency_s: float) -> None:
        """Count one."""
        self.counts[bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
        self.sum_s += latency_s
