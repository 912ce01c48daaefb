"""Orders to the shell."""

from dataclasses import dataclass

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import System
from mqtt_mdi.core.types import DeviceState, FrameKey, Outcome, Result, Task, Window


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Tell TimerFired(key) at time `at`; replaces an earlier time for the same key."""

    key: str
    at: float


@dataclass(frozen=True, slots=True)
class RunStage:
    """Run the task's stage; answers with StageCompleted or StageFailed."""

    task: Task


@dataclass(frozen=True, slots=True)
class SendTask:
    """Hand the task and its input to a device."""

    device: str
    task: Task


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """Tell the source what became of a frame."""

    source: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class DropInput:
    """Nobody here needs the task's input any more."""

    task: Task


@dataclass(frozen=True, slots=True)
class PublishState:
    """Tell everybody this device's state."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class ObserveBacklog:
    """Look at the queues of the worker beside the source; answers with BacklogObserved."""


@dataclass(frozen=True, slots=True)
class SubmitTask:
    """Give the worker beside the source a frame's first task."""

    task: Task


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Publish the one answer to a frame."""

    result: Result


@dataclass(frozen=True, slots=True)
class RefuseFrame:
    """The frame was not admitted; tell its sensor if it asked."""

    frame: FrameKey
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseFrame:
    """The frame is answered: forget its bytes."""

    frame: FrameKey


@dataclass(frozen=True, slots=True)
class PublishPolicy:
    """Store the policy and publish it retained; `origin` says who wanted it."""

    policy: Policy
    origin: str


@dataclass(frozen=True, slots=True)
class SolvePlan:
    """Plan for a system as the policy's `planning` asks; answers with PlanSolved."""

    system: System
    policy: Policy


@dataclass(frozen=True, slots=True)
class RecordDecision:
    """Tell people what the planner decided and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class AnswerPatch:
    """Tell the operator the version now in force, and why the patch was rejected if it was."""

    request: object
    version: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RecordDevice:
    """Store a device's state because it changed in more than its counters."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class CloseWindow:
    """Store a window and publish it, with the totals so far, as metrics."""

    window: Window
    totals: Window
    devices_online: int
