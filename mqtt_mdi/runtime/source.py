"""A source: a device that also admits sensors' frames and answers each once."""

import re
from dataclasses import dataclass
from hashlib import blake2b

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import TIMERS, Source
from mqtt_mdi.core.types import FRAME_ID, FrameKey, Outcome, Result
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.runtime.device import DRAIN_S, Device, DeviceSettings, LoadStage
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.wire.frames import Frame, sniff
from mqtt_mdi.wire.messages import OUTCOMES, RESULT
from mqtt_mdi.wire.topics import Topic, identifier

_FRAME_ID = re.compile(FRAME_ID)
DIGEST_BYTES = 60
IN_HEX = "hex:"


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
        self.frame_topics = [self.topics.frames(sensor) for sensor in self.sensors or ("+",)]
        self.source: Source | None = None
        self.frames: dict[FrameKey, Admitted] = {}
        self._given = 0

    def connected(self) -> None:
        """Subscribe to frames and to what becomes of them, too."""
        super().connected()
        self.connection.subscribe(self.topics.exits(self.name), qos=1)
        for topic in self.frame_topics:
            self.connection.subscribe(topic, qos=1)

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
            self.source = self.new_source(Policy(thresholds=manifest.thresholds), manifest)
        self.source.stage_count = manifest.stage_count
        self.source.class_names = manifest.classes

    def new_source(self, policy: Policy, manifest: Manifest) -> Source:
        """The machine, once there is a model."""
        return Source(self.name, policy, manifest.stage_count, manifest.classes)

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
                self.submit(task, self.frames[task.frame].frame)
            case effects.PublishResult(result):
                self.answer(result)
            case effects.RefuseFrame(frame, reason):
                admitted = self.frames[frame]
                self._refuse(frame, reason, admitted.response_topic, admitted.correlation)
            case effects.ReleaseFrame(frame):
                self.frames.pop(frame, None)
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
        for topic in self.frame_topics:
            self.connection.unsubscribe(topic)
        self.tell_source(events.Stopping())
        deadline = self.now() + DRAIN_S
        while self.source is not None and self.source.leases and self.now() < deadline:
            self.turn()
        self.tell_source(events.Stopped())
        super().drain()

    def _observe_backlog(self) -> None:
        tasks = len(self.worker.input) + len(self.worker.output) if self.worker else 0
        self.tell_source(events.BacklogObserved(tasks))

    def fault_of(self, message: Message) -> str | None:
        """Why a message can be no frame for us, whatever is in it."""
        if message.retain:
            return "retained frames are old"
        return None if self.source is not None else "the source has no model yet"

    def take_in(self, key: FrameKey, admitted: Admitted) -> None:
        """Keep a frame's bytes and tell the source of it."""
        self.frames.setdefault(key, admitted)
        self.tell_source(events.FrameArrived(key, len(admitted.frame.data)))

    def answer(self, result: Result) -> None:
        """Publish a frame's one result."""
        admitted = self.frames[result.frame]
        payload = RESULT.encode(result)
        self.publish_answer(result.sensor, payload, admitted.response_topic, admitted.correlation)

    def publish_answer(
        self, sensor: str, payload: bytes, response_topic: str | None, correlation: bytes | None
    ) -> None:
        """Publish a result for everybody, and where its sensor asked for it."""
        self.connection.publish(self.topics.results(sensor), payload, qos=1)
        self._reply(sensor, payload, response_topic, correlation)

    def _hear_frame(self, message: Message, sensor: str) -> None:
        key = FrameKey(sensor, self._frame_id(message.correlation))
        try:
            if (fault := self.fault_of(message)) is not None:
                raise ProtocolError(fault)  # noqa: TRY301 -- told below, like bytes that are no frame
            frame = sniff(message.payload, message.content_type)
        except ProtocolError as error:
            self._refuse(key, str(error), message.response_topic, message.correlation)
            raise
        self.take_in(key, Admitted(frame, message.response_topic, message.correlation))

    def _frame_id(self, correlation: bytes | None) -> str:
        """The sensor's own id when it gave one that can stand in JSON, else its bytes in hexadecimal.

        Of an id that is too long for that its BLAKE2b digest stands there, and one that reads like
        hexadecimal of ours is written in it, too: two ids are never one.
        """
        if not correlation:
            self._given += 1
            return f"{self.identity.boot}-{self._given}"
        text = correlation.decode("ascii", "replace")
        if _FRAME_ID.fullmatch(text) and not text.startswith(IN_HEX):
            return text
        if len(correlation) >= DIGEST_BYTES:
            correlation = blake2b(correlation, digest_size=DIGEST_BYTES).digest()
        return f"{IN_HEX}{correlation.hex()}"

    def _refuse(self, key: FrameKey, reason: str, topic: str | None, correlation: bytes | None) -> None:
        """Tell a sensor that asked of a frame that was not admitted."""
        refusal = Result(key.sensor, key.frame_id, "failed", attempts=0, reason=f"refused: {reason}"[:500])
        self._reply(key.sensor, RESULT.encode(refusal), topic, correlation)

    def _reply(self, sensor: str, payload: bytes, topic: str | None, correlation: bytes | None) -> None:
        if topic:
            self.respond(topic, payload, correlation, self.topics.results(sensor))
