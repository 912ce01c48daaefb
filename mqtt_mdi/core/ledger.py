"""The source's books: what was admitted is answered, failed or still owed."""

from collections import Counter
from dataclasses import dataclass, field


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
