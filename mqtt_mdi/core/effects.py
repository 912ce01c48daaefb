"""Orders to the shell."""

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import System
from mqtt_mdi.core.types import DeviceState, FrameKey, Outcome, Result, Task, Window
from mqtt_mdi.core.value import value


@value
class SetTimer:
    """Tell TimerFired(key) at time `at`; replaces an earlier time for the same key."""

    key: str
    at: float


@value
class RunStage:
    """Run the task's stage; answers with StageCompleted or StageFailed."""

    task: Task


@value
class SendTask:
    """Hand the task and its input to a device."""

    device: str
    task: Task


@value
class ReportOutcome:
    """Tell the source what became of a frame."""

    source: str
    outcome: Outcome


@value
class DropInput:
    """Nobody here needs the task's input any more."""

    task: Task


@value
class PublishState:
    """Tell everybody this device's state."""

    state: DeviceState


@value
class ObserveBacklog:
    """Look at the queues of the worker beside the source; answers with BacklogObserved."""


@value
class SubmitTask:
    """Give the worker beside the source a frame's first task."""

    task: Task


@value
class PublishResult:
    """Publish the one answer to a frame."""

    result: Result


@value
class RefuseFrame:
    """The frame was not admitted; tell its sensor if it asked."""

    frame: FrameKey
    reason: str


@value
class ReleaseFrame:
    """The frame is answered: forget its bytes."""

    frame: FrameKey


@value
class PublishPolicy:
    """Store the policy and publish it retained; `origin` says who wanted it."""

    policy: Policy
    origin: str


@value
class SolvePlan:
    """Plan for a system as the policy's `planning` asks; answers with PlanSolved."""

    system: System
    policy: Policy


@value
class RecordDecision:
    """Tell people what the planner decided and why."""

    reason: str


@value
class AnswerPatch:
    """Tell the operator the version now in force, and why the patch was rejected if it was."""

    request: object
    version: int
    reason: str | None = None


@value
class RecordDevice:
    """Store a device's state because it changed in more than its counters."""

    state: DeviceState


@value
class CloseWindow:
    """Store a window and publish it, with the totals so far, as metrics."""

    window: Window
    totals: Window
    devices_online: int
