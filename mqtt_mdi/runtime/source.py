"""A source: a device that also admits sensors' frames and answers each once."""

import re
from dataclasses import dataclass

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import TIMERS, Source
from mqtt_mdi.core.types import FRAME_ID, FrameKey, Outcome, Result
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.runtime.client import Message
from mqtt_mdi.runtime.device import DRAIN_S, Device, DeviceSettings, LoadStage
from mqtt_mdi.wire.frames import Frame, sniff
from mqtt_mdi.wire.messages import OUTCOMES, RESULT
from mqtt_mdi.wire.topics import Topic, identifier

_FRAME_ID = re.compile(FRAME_ID)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A frame's bytes, and where its sensor wants the answer."""

    frame: Frame
    response_topic: str | None = None
    correlation: bytes | None = None


class SourceDevice(Device):
    """The process that holds a source and a worker, as in the paper; the worker may hold no stage."""

    role = "source"

    def __init__(self, settings: DeviceSettings, load: LoadStage, sensors: tuple[str, ...] = ()) -> None:
        super().__init__(settings, load)
        self.sensors = tuple(identifier(sensor, "--sensors") for sensor in sensors)
        self.source: Source | None = None
        self._frames: dict[FrameKey, Admitted] = {}
        self._given = 0

    def connected(self) -> None:
        """Subscribe to frames and to what becomes of them, too."""
        super().connected()
        self.connection.subscribe(self.topics.exits(self.name), qos=1)
        for sensor in self.sensors or ("+",):
            self.connection.subscribe(self.topics.frames(sensor), qos=1)

    def received(self, message: Message, topic: Topic) -> None:
        """Turn a message into events."""
        match topic.kind:
            case "frames":
                self._hear_frame(message, topic.name)
            case "exits":
                for outcome in OUTCOMES.decode(message.payload):
                    self.tell_source(events.OutcomeReported(outcome))
            case _:
                super().received(message, topic)

    def model_changed(self, manifest: Manifest) -> None:
        """Answer in the names of this model's classes; frames that wait are tried again with it."""
        if self.source is None:
            policy = Policy(thresholds=manifest.thresholds)
            self.source = Source(self.name, policy, manifest.stage_count, manifest.classes)
        self.source.stage_count = manifest.stage_count
        self.source.class_names = manifest.classes

    def tell(self, event: object) -> None:
        """Give the worker an event; the source hears of policies, too."""
        super().tell(event)
        if isinstance(event, events.PolicyChanged):
            self.tell_source(event)

    def tell_source(self, event: object) -> None:
        """Give the source an event and carry out what it orders."""
        if self.source is None:
            return
        for effect in self.source.handle(event, self.now()):  # type: ignore[arg-type]
            self.carry_out(effect)

    def carry_out(self, effect: object) -> None:
        """Do what the source or the worker ordered."""
        match effect:
            case effects.SubmitTask(task):
                self.submit(task, self._frames[task.frame].frame)
            case effects.PublishResult(result):
                self._publish_result(result)
            case effects.RefuseFrame(frame, reason):
                self._refuse(frame, reason)
            case effects.ReleaseFrame(frame):
                self._frames.pop(frame, None)
            case effects.ObserveBacklog():
                self.call(self._observe_backlog)
            case effects.SetTimer(key, at) if key in TIMERS:
                self.set_timer(key, at, lambda fired: self.tell_source(events.TimerFired(fired)))
            case _:
                super().carry_out(effect)

    def report(self, source: str, outcome: Outcome) -> None:
        """An outcome for the source in this process needs no broker."""
        if source == self.name:
            self.call(lambda: self.tell_source(events.OutcomeReported(outcome)))
        else:
            super().report(source, outcome)

    def extra_counters(self) -> dict[str, int]:
        """The source's books stand in the state message, too."""
        books = self.source.ledger.counters() if self.source else {}
        return {**super().extra_counters(), **books}

    def drain(self) -> None:
        """Admit nothing more, wait a while for what is owed, answer the rest as failed."""
        for sensor in self.sensors or ("+",):
            self.connection.unsubscribe(self.topics.frames(sensor))
        self.tell_source(events.Stopping())
        deadline = self.now() + DRAIN_S
        while self.source is not None and self.source.leases and self.now() < deadline:
            self.turn()
        self.tell_source(events.Stopped())
        super().drain()

    def _observe_backlog(self) -> None:
        tasks = len(self.worker.input) + len(self.worker.output) if self.worker else 0
        self.tell_source(events.BacklogObserved(tasks))

    def _hear_frame(self, message: Message, sensor: str) -> None:
        if message.retain or self.source is None:
            reason = "retained frames are old" if message.retain else "the source has no model yet"
            raise ProtocolError(reason)
        key = FrameKey(sensor, self._frame_id(message.correlation))
        try:
            admitted = Admitted(
                sniff(message.payload, message.content_type), message.response_topic, message.correlation
            )
        except ProtocolError as error:
            self._reply(message.response_topic, message.correlation, _refusal(key, str(error)))
            raise
        self._frames.setdefault(key, admitted)
        self.tell_source(events.FrameArrived(key, len(message.payload)))

    def _frame_id(self, correlation: bytes | None) -> str:
        """The sensor's own id when it gave one that can stand in JSON, else its bytes in hexadecimal."""
        if not correlation:
            self._given += 1
            return f"{self.identity.boot}-{self._given}"
        text = correlation.decode("ascii", "replace")
        return text if _FRAME_ID.fullmatch(text) else f"0x{correlation[:60].hex()}"

    def _publish_result(self, result: Result) -> None:
        self.connection.publish(self.topics.results(result.sensor), RESULT.encode(result), qos=1)
        admitted = self._frames.get(result.frame)
        if admitted is not None:
            self._reply(admitted.response_topic, admitted.correlation, result)

    def _refuse(self, frame: FrameKey, reason: str) -> None:
        admitted = self._frames[frame]
        self._reply(admitted.response_topic, admitted.correlation, _refusal(frame, reason))

    def _reply(self, topic: str | None, correlation: bytes | None, result: Result) -> None:
        if topic:
            self.respond(topic, RESULT.encode(result), correlation)


def _refusal(frame: FrameKey, reason: str) -> Result:
    """What a sensor that asked is told of a frame that was not admitted."""
    return Result(frame.sensor, frame.frame_id, "failed", attempts=0, reason=f"refused: {reason}"[:500])
