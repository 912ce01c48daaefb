"""Facts that happened, told to machines."""

from collections.abc import Mapping
from typing import Any

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Plan
from mqtt_mdi.core.types import DeviceState, FrameKey, Outcome, Result, Task
from mqtt_mdi.core.value import value


@value
class Started:
    """The shell is ready to carry out effects, at first or again after the broker was away."""


@value
class TimerFired:
    """The time asked for with SetTimer has come."""

    key: str


@value
class PolicyChanged:
    """A policy arrived; older versions than the one in force are ignored."""

    policy: Policy


@value
class NeighbourReported:
    """A device told its state."""

    state: DeviceState


@value
class NeighbourLost:
    """The broker published a device's last will, or the device said goodbye."""

    device: str


@value
class TaskArrived:
    """A task reached this worker, from another, named if it said so, or from the source beside it."""

    task: Task
    sender: str | None = None


@value
class StagesReady:
    """The stages that this worker's engine can run from now on."""

    stages: frozenset[int]


@value
class StageCompleted:
    """The engine ran a task's stage in `seconds`; `size` is the bytes of the next stage's input."""

    task: Task
    label: int
    score: float
    seconds: float
    size: int = 0


@value
class StageFailed:
    """The engine could not run a task's stage; `retry` says whether another attempt could succeed."""

    task: Task
    reason: str
    retry: bool = False


@value
class FrameArrived:
    """A sensor's frame reached the source."""

    frame: FrameKey
    size: int


@value
class Stopping:
    """The source's process will end: admit nothing more, what is admitted may still be answered."""


@value
class Stopped:
    """The source's process ends now."""


@value
class BacklogObserved:
    """q = I + O of the worker beside the source, in tasks; answers ObserveBacklog."""

    tasks: int


@value
class OutcomeReported:
    """A device told the source what became of a frame."""

    outcome: Outcome


@value
class ResultsStored:
    """The store took results in: the new ones, how many it had already, and the newly graded.

    `corrected` is how many more of those graded before are right now, as their truth was told anew.
    """

    results: tuple[Result, ...] = ()
    duplicates: int = 0
    graded: tuple[bool, ...] = ()
    corrected: int = 0


@value
class PlanSolved:
    """The solver is done: a plan, or why there is none."""

    plan: Plan | None
    fault: str | None = None


@value
class PatchRequested:
    """An operator asked for a change of policy; `request` is given back with the answer."""

    patch: Mapping[str, Any]
    request: object = None
