"""Facts that happened, told to machines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Plan
from mqtt_mdi.core.types import DeviceState, FrameKey, Outcome, Result, Task


@dataclass(frozen=True, slots=True)
class Started:
    """The shell is ready to carry out effects, at first or again after the broker was away."""


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time asked for with SetTimer has come."""

    key: str


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """A policy arrived; older versions than the one in force are ignored."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class NeighbourReported:
    """A device told its state."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class NeighbourLost:
    """The broker published a device's last will, or the device said goodbye."""

    device: str


@dataclass(frozen=True, slots=True)
class TaskArrived:
    """A task reached this worker, from another, named if it said so, or from the source beside it."""

    task: Task
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class StagesReady:
    """The stages that this worker's engine can run from now on."""

    stages: frozenset[int]


@dataclass(frozen=True, slots=True)
class StageCompleted:
    """The engine ran a task's stage in `seconds`; `size` is the bytes of the next stage's input."""

    task: Task
    label: int
    score: float
    seconds: float
    size: int = 0


@dataclass(frozen=True, slots=True)
class StageFailed:
    """The engine could not run a task's stage; `retry` says whether another attempt could succeed."""

    task: Task
    reason: str
    retry: bool = False


@dataclass(frozen=True, slots=True)
class FrameArrived:
    """A sensor's frame reached the source."""

    frame: FrameKey
    size: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """The source's process will end: admit nothing more, what is admitted may still be answered."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The source's process ends now."""


@dataclass(frozen=True, slots=True)
class BacklogObserved:
    """q = I + O of the worker beside the source, in tasks; answers ObserveBacklog."""

    tasks: int


@dataclass(frozen=True, slots=True)
class OutcomeReported:
    """A device told the source what became of a frame."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ResultsStored:
    """The store took results in: the new ones, how many it had already, and the newly graded."""

    results: tuple[Result, ...] = ()
    duplicates: int = 0
    graded: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanSolved:
    """The solver is done: a plan, or why there is none."""

    plan: Plan | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class PatchRequested:
    """An operator asked for a change of policy; `request` is given back with the answer."""

    patch: Mapping[str, Any]
    request: object = None
