"""What experiments bring, one row each: the columns of their tables and of the files in `docs/figures`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """A contestant in a system; rates in frames a second.

    `bound` and `bound_at_source` are λ* for the very frames answered, with the bundle's thresholds and
    with stages placed freely; the latter if no frame left its source before stage 1.
    """

    system: str
    contestant: str
    seed: int
    frames: int
    rate: float
    efficiency: float
    accuracy: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    bound: float
    bound_at_source: float
    failed: int
    policy: str


@dataclass(frozen=True)
class Accuracy:
    """A contestant in a system at an arrival rate in frames a second.

    `accuracy` is the share of right answers, `right` that of right answers among all frames, `refused` that
    of frames not admitted. `limit` is the highest accuracy with which fixed thresholds could keep up.
    """

    system: str
    contestant: str
    seed: int
    arrival_rate: float
    accuracy: float
    right: float
    refused: float
    limit: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None


@dataclass(frozen=True)
class Chosen:
    """The policy that a contestant was tuned to in a system."""

    system: str
    contestant: str
    policy: str


@dataclass(frozen=True)
class Limit:
    """The highest accuracy of any fixed thresholds by rate: for the samples replayed, known beforehand."""

    rates: tuple[float, ...]
    accuracies: tuple[float, ...]

    def at(self, rate: float) -> float:
        """The highest accuracy at which the bound is not below a rate; 0 where there is none."""
        fine = [a for r, a in zip(self.rates, self.accuracies, strict=True) if r >= rate]
        return max(fine, default=0.0)


@dataclass(frozen=True)
class Busy:
    """The share of its time that a device spent on a stage."""

    contestant: str
    seed: int
    device: str
    stage: int
    share: float


@dataclass(frozen=True)
class Cost:
    """One simulation by one processor: seconds to set it up and to run it, on the wall and of the CPU."""

    devices: int
    strategy: str
    frames: int
    answered: int
    virtual_s: float
    events: int
    setup_s: float
    wall_s: float
    cpu_s: float
    us_an_event: float
    us_a_frame: float
