"""What a strategy is: how workers share tasks out, and which stages the devices hold."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from random import Random
from typing import Protocol

from mqtt_mdi.core.offload import Neighbour
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Member, System
from mqtt_mdi.core.types import Task

ANY = "any"
"""Instead of a device: whoever holds the stage, as the broker's shared subscription picks."""

Placement = Mapping[str, tuple[int, ...]]


class Local(Protocol):
    """What a worker knows when it decides. Strategies read it and change nothing.

    `routed[stage, device]` counts what lately came up here and went where, itself included.
    """

    @property
    def name(self) -> str:
        """The device."""

    @property
    def policy(self) -> Policy:
        """The policy in force here."""

    @property
    def stages(self) -> frozenset[int]:
        """The stages this worker can run."""

    @property
    def input(self) -> deque[Task]:
        """I_n."""

    @property
    def output(self) -> Sized:
        """O_n."""

    @property
    def neighbours(self) -> Mapping[str, Neighbour]:
        """Every device heard of, whether it may be sent to or not."""

    @property
    def wait(self) -> float:
        """I_n Γ_n: seconds until a task queued now would begin here."""

    @property
    def routed(self) -> Counter[tuple[int, str]]:
        """What went where."""

    @property
    def rng(self) -> Random:
        """For what is left to chance."""

    def holders(self, stage: int) -> list[Neighbour]:
        """The neighbours that hold a stage, may be sent to and have room."""


@dataclass(frozen=True)
class Strategy:
    """How tasks are shared out, as data and pure functions.

    `keeps(worker, task)`: whether a task that comes up at a worker holding its stage goes into I_n; else it
    goes into O_n. A task comes up where its frame is admitted or where the stage before it was run; what
    another worker sent stays, if it can run here.
    `target(worker, stage)`: the device, or ANY, that gets the oldest task of a stage in O_n now; None lets
    it wait. A worker with nothing else to do runs what waits.
    `arrange(system)`: which stages each device is to hold, asked whenever devices come or go; None leaves
    stages where they are: on the devices that were started with them, or by hand.
    `early_exits`: whether frames may leave before the last exit. `planned`: whether the coordinator solves
    for placement and shares.
    """

    about: str
    keeps: Callable[[Local, Task], bool]
    target: Callable[[Local, int], str | None]
    arrange: Callable[[System], Placement] | None = None
    early_exits: bool = True
    planned: bool = False


def room_for_all(member: Member, system: System) -> bool:
    """Whether a device has the memory for every stage."""
    return member.memory is None or member.memory >= sum(profile.memory for profile in system.profiles)
