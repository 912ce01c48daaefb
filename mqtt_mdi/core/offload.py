"""MDI-Exit, Algorithm 2: whether and to whom a worker sends a task (arXiv 2408.05247)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from mqtt_mdi.core.types import DeviceState

SMOOTHING = 0.2
"""Weight of a new measurement in the moving averages of service times and delays."""


def smooth(average: float | None, sample: float) -> float:
    """Exponential moving average; the first sample stands for itself."""
    return sample if average is None else average + SMOOTHING * (sample - average)


@dataclass(slots=True)
class Neighbour:
    """What a worker believes of another: its last report, and what was sent to it since."""

    state: DeviceState
    seen_at: float
    delay: float | None = None
    unreported: int = 0

    @property
    def backlog(self) -> int:
        """I_m with the task in its engine and the tasks it has not reported yet."""
        return self.state.input_queue + self.state.running + self.unreported

    @property
    def wait(self) -> float:
        """D_nm + I_m Γ_m: expected seconds until a task sent now is begun there."""
        return (self.delay or 0.0) + self.backlog * self.state.service_s


def optional_target(
    neighbours: Iterable[Neighbour], *, output_length: int, own_wait: float, rng: Random
) -> Neighbour | None:
    """A neighbour for a task that could also stay.

    A neighbour is considered when O_n > I_m. With D_nm + I_m Γ_m < I_n Γ_n it gets the task;
    otherwise with probability min(1, I_n Γ_n / (D_nm + I_m Γ_m)). `own_wait` is I_n Γ_n in seconds.
    """
    for neighbour in neighbours:
        if output_length <= neighbour.backlog:
            continue
        wait = neighbour.wait
        if wait < own_wait or (wait > 0 and rng.random() < own_wait / wait):
            return neighbour
    return None


def required_target(neighbours: Sequence[Neighbour], *, rng: Random) -> Neighbour:
    """Of at least one neighbour, that with the least expected wait for a task that cannot stay.

    The published rule has no such task; here it would compare with an infinite wait of one's own, so
    the shortest wait decides, ties by lot.
    """
    return min(neighbours, key=lambda n: (n.wait, n.backlog, rng.random()))
