"""The values that machines exchange. Times are seconds, sizes bytes, stages count from 1.

The annotations carry the limits that the wire checks: each value here is also, field by field, the
JSON or CBOR that travels.
"""

from dataclasses import field
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import AllowInfNan, StringConstraints

from mqtt_mdi.core.value import value

IDENTIFIER = r"^[A-Za-z0-9_-]{1,64}$"
FRAME_ID = r"^[A-Za-z0-9_.:-]{1,128}$"
MOST_LINKS = 1024
"""Neighbours to which a device's state tells its links; of more it tells those it has known longest."""

Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER)]
FrameId = Annotated[str, StringConstraints(pattern=FRAME_ID)]
StageIndex = Annotated[int, Ge(1), Le(64)]
Count = Annotated[int, Ge(0), Le(2**63 - 1)]
Number = Annotated[float, AllowInfNan(False)]  # noqa: FBT003 -- pydantic's own signature
Seconds = Annotated[float, Ge(0), AllowInfNan(False)]  # noqa: FBT003 -- pydantic's own signature
Reason = Annotated[str, MaxLen(500)]


class FrameKey(NamedTuple):
    """What names one frame within a pipeline."""

    sensor: str
    frame_id: str


@value
class Task:
    """The unit queued and offloaded: run `stage` on one frame.

    `admitted_at` is read from the source's own clock and means nothing elsewhere; `hops` counts the
    devices the frame was handed on to; `attempt` counts its leases.
    """

    sensor: Identifier
    frame_id: FrameId
    source: Identifier
    stage: StageIndex
    attempt: Annotated[int, Ge(1)] = 1
    hops: Count = 0
    admitted_at: Number = 0.0
    size: Count = 0

    @property
    def frame(self) -> FrameKey:
        """The frame this task belongs to."""
        return FrameKey(self.sensor, self.frame_id)

    @property
    def work(self) -> tuple[str, str, int]:
        """What is to be done, whichever attempt it belongs to."""
        return (self.sensor, self.frame_id, self.stage)

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells this task from every other one, and its duplicates."""
        return (self.sensor, self.frame_id, self.stage, self.attempt)

    def outcome(self, device: str, **result: Any) -> "Outcome":  # noqa: ANN401 -- fields of an Outcome
        """What became of this task on a device, with the label and score or the reason in `result`."""
        return Outcome(self.sensor, self.frame_id, self.attempt, self.stage, device, hops=self.hops, **result)


@value
class Outcome:
    """What a device tells the source about a frame: it left at an exit, or its stage failed.

    `retry` says whether another attempt could succeed.
    """

    sensor: Identifier
    frame_id: FrameId
    attempt: Annotated[int, Ge(1)]
    stage: StageIndex
    device: Identifier
    hops: Count = 0
    label: Count | None = None
    score: Number | None = None
    reason: Reason | None = None
    retry: bool = False

    @property
    def frame(self) -> FrameKey:
        """The frame this outcome belongs to."""
        return FrameKey(self.sensor, self.frame_id)


@value
class Result:
    """The one answer to a frame; latency is measured by the source from admission to answer."""

    sensor: Identifier
    frame_id: FrameId
    status: Literal["ok", "failed"]
    label: Count | None = None
    class_name: str | None = None
    score: Number | None = None
    exit_stage: StageIndex | None = None
    device: Identifier | None = None
    latency_ms: Annotated[float, Ge(0), AllowInfNan(False)] = 0.0  # noqa: FBT003 -- pydantic's own signature
    hops: Count = 0
    attempts: Count = 1
    policy_version: Count = 0
    reason: Reason | None = None

    @property
    def frame(self) -> FrameKey:
        """The frame this result answers."""
        return FrameKey(self.sensor, self.frame_id)


@value
class Truth:
    """The right label of a frame, from whoever knows it, perhaps long after the result."""

    sensor: Identifier
    frame_id: FrameId
    label: Count

    @property
    def frame(self) -> FrameKey:
        """The frame this truth is about."""
        return FrameKey(self.sensor, self.frame_id)


@value
class Echo:
    """A neighbour's time stamp given back: measures the link without a common clock.

    `received` counts the bytes of tasks that came from that neighbour since this start.
    """

    stamp: Number
    held_s: Seconds
    received: Count = 0


@value
class DeviceState:
    """What a device says of itself on `devices/{id}/state`.

    `boot` is drawn afresh at each start; `service_s` is the moving average of seconds per task,
    `service_by_stage` the same for each stage it has run; `stamp` is read from the device's clock
    and comes back in its neighbours' `echoes`. `delays` are the seconds D_nm to each neighbour, as
    measured; `memory` the bytes that stages may take, None without limit.
    """

    device: Identifier
    boot: Identifier
    online: bool = True
    role: Literal["device", "source"] = "device"
    stages: Annotated[tuple[StageIndex, ...], MaxLen(64)] = ()
    input_queue: Count = 0
    output_queue: Count = 0
    running: Annotated[int, Ge(0), Le(1)] = 0
    service_s: Seconds = 0.0
    service_by_stage: dict[StageIndex, Seconds] = field(default_factory=dict)
    counters: dict[Annotated[str, MinLen(1), MaxLen(64)], Count] = field(default_factory=dict)
    policy_version: Count = 0
    memory: Count | None = None
    stamp: Number = 0.0
    delays: Annotated[dict[Identifier, Seconds], MaxLen(MOST_LINKS)] = field(default_factory=dict)
    echoes: Annotated[dict[Identifier, Echo], MaxLen(MOST_LINKS)] = field(default_factory=dict)


@value
class Window:
    """What a stretch of time brought; rates follow by dividing by `seconds`.

    `exits[k]` counts the answers given at exit k + 1; `graded` counts the results whose truth came
    to be known in this window, `correct` those among them that were right.
    """

    seconds: Seconds
    answered: Count = 0
    failed: Count = 0
    duplicates: Count = 0
    graded: Count = 0
    correct: Count = 0
    exits: tuple[Count, ...] = ()
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
