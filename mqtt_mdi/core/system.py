"""What a planner knows of a system, and the plan it makes. Sizes are bytes, rates per second."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Pair = tuple[str, str]

ENVELOPE_BYTES = 200
"""About what a task's fields and MQTT add to its input."""

Shares = Mapping[str, Mapping[int, Mapping[str, float]]]
"""By device and stage: of the tasks of that stage that come up there, how many go where; sums are 1.

A device that names itself runs that share; for what others sent it, it runs the stage if it holds it.
"""


@dataclass(frozen=True, slots=True)
class StageProfile:
    """What one task of a stage asks for: multiply-adds, bytes of its input on the wire, bytes to hold it."""

    macs: int
    input_bytes: int
    memory: int


@dataclass(frozen=True, slots=True)
class Member:
    """A device that is online: `seconds[k]` is Γ of stage k + 1.

    `memory` are the bytes it has for stages, None without limit; `stages` are those it holds now.
    """

    device: str
    seconds: tuple[float, ...]
    memory: int | None = None
    source: bool = False
    stages: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class System:
    """The devices that are online and the bytes a second from one to another.

    Only pairs in `links` may send to each other.
    """

    members: tuple[Member, ...]
    links: Mapping[Pair, float]
    profiles: tuple[StageProfile, ...]

    @property
    def names(self) -> frozenset[str]:
        """The devices by name."""
        return frozenset(member.device for member in self.members)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who holds what and who sends what where; `rate` is what the fluid bound allows with it.

    `limit` is the highest rate of any placement, as far as proven. `accuracy` is the trace's, None
    where thresholds were given. `reason` says in a few words what decided.
    """

    rate: float
    limit: float
    thresholds: tuple[float, ...]
    placement: Mapping[str, tuple[int, ...]]
    shares: Shares
    accuracy: float | None = None
    reason: str = ""
    work: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
