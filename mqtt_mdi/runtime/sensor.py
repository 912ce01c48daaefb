"""A sensor that streams labelled frames and hears the answers, as any MQTT client could."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mqtt_mdi.bundle.manifest import parse_manifest
from mqtt_mdi.core.types import DeviceState, Result
from mqtt_mdi.errors import BundleError, ConfigError, ProtocolError
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.runtime.shell import Shell, new_boot
from mqtt_mdi.wire.frames import Frame
from mqtt_mdi.wire.messages import RESULT, TRUTH, TruthMessage, state_of
from mqtt_mdi.wire.topics import Topic, Topics, identifier

PATIENCE_S = 30.0
FINISHING_S = 5.0
"""How long a sensor that was told to stop waits for the answers to what it has sent."""
GIVEN_UP_REMEMBERED = 10_000


@dataclass(frozen=True)
class SensorSettings:
    """How a sensor is started. `rate` is in frames a second, None for as fast as `window` allows.

    `frames` None means without end, `seconds` ends it by time; `window` bounds the frames without an answer.
    """

    broker: BrokerURL
    pipeline: str
    sensor: str
    frames: int | None
    rate: float | None = None
    window: int = 64
    seconds: float | None = None


@dataclass
class Tally:
    """What a sensor saw of its own frames; `lost` had no answer within PATIENCE_S."""

    sent: int = 0
    lost: int = 0
    answered: int = 0
    failed: int = 0
    duplicates: int = 0
    graded: int = 0
    correct: int = 0
    exits: Counter[int] = field(default_factory=Counter)


class SensorShell(Shell):
    """Publishes frames in turn, with the truth where it is known."""

    def __init__(
        self,
        settings: SensorSettings,
        frames: Sequence[Frame],
        labels: Sequence[int] = (),
        answered: Callable[[Result, Tally], None] = lambda _result, _tally: None,
    ) -> None:
        if not frames:
            raise ConfigError("no frames to send")
        name = identifier(settings.sensor, "--id")
        topics = Topics(settings.pipeline)
        self.settings = settings
        self.boot = new_boot()
        connection = Connection(
            settings.broker,
            topics.client_id("sensor", name, self.boot),
            own=topics.frames(name),
        )
        super().__init__(name, topics, connection)
        self.tally = Tally()
        self.stage_count: int | None = None
        self.devices: dict[str, DeviceState] = {}
        self.unanswered: dict[str, tuple[int | None, float]] = {}
        self.given_up: dict[str, int | None] = {}
        self._frames = frames
        self._labels = labels
        self._answered = answered
        self._next_at = 0.0
        self._began: float | None = None
        self._finish_by: float | None = None

    def finish(self) -> None:
        """Send no more, and end `run` when what was sent is answered, or soon; asked again, end it at once.

        From the loop's own thread or a signal handler.
        """
        if self._finish_by is not None or not self.unanswered:
            self.stop()
            return
        self._finish_by = self.now() + FINISHING_S
        self.connection.wake()

    def serve(self) -> Tally:
        """Wait for the pipeline, send every frame, hear every answer; returns what was seen."""
        try:
            self.run()
        finally:
            self.connection.close()
        return self.tally

    def missing(self) -> list[str]:
        """What the pipeline lacks before it can answer a frame."""
        online = [state for state in self.devices.values() if state.online]
        lacks = [] if any(state.role == "source" for state in online) else ["a source"]
        if self.stage_count is None:
            return [*lacks, "a coordinator's model"]
        held = {stage for state in online for stage in state.stages}
        return lacks + [f"stage {k}" for k in range(1, self.stage_count + 1) if k not in held]

    def connected(self) -> None:
        """Subscribe to our answers and to what tells whether there is anybody to answer."""
        self.connection.subscribe(self.topics.results(self.name), qos=1)
        self.connection.subscribe(self.topics.device())
        self.connection.subscribe(self.topics.manifest, qos=1)

    def received(self, message: Message, topic: Topic) -> None:
        """Hear an answer, or who is there."""
        match topic.kind:
            case "results":
                self._hear(RESULT.decode(message.payload))
            case "devices" if message.payload:
                self.devices[topic.name] = state_of(topic.name, message.payload)
            case "devices":
                self.devices.pop(topic.name, None)
            case "model/manifest":
                try:
                    self.stage_count = parse_manifest(message.payload, "the manifest").stage_count
                except BundleError as error:
                    raise ProtocolError(str(error)) from error

    def end_turn(self) -> None:
        """Send what rate and window allow; stop when nothing is owed an answer any more."""
        now = self.now()
        if not self.tally.sent and self.missing():
            self._next_at = now
            return
        self._give_up(now)
        while self._may_send(now):
            self._send(now)
        overdue = self._finish_by is not None and now >= self._finish_by
        if overdue or (self._is_over(now) and not self.unanswered):
            self.stop()

    def _give_up(self, now: float) -> None:
        """Frames lost for good must not fill the window for ever."""
        while self.unanswered:
            frame_id, (label, sent_at) = next(iter(self.unanswered.items()))
            if now - sent_at < PATIENCE_S:
                return
            del self.unanswered[frame_id]
            self.given_up[frame_id] = label
            self.tally.lost += 1
            if len(self.given_up) > GIVEN_UP_REMEMBERED:
                del self.given_up[next(iter(self.given_up))]

    def _is_over(self, now: float) -> bool:
        """Whether nothing more is to be sent."""
        settings = self.settings
        if self._finish_by is not None:
            return True
        if settings.seconds is not None and self._began is not None and now >= self._began + settings.seconds:
            return True
        return settings.frames is not None and self.tally.sent >= settings.frames

    def _may_send(self, now: float) -> bool:
        if self._is_over(now):
            return False
        if len(self.unanswered) >= self.settings.window:
            return False
        if self.settings.rate is not None and now < self._next_at:
            self.set_timer("send", self._next_at, lambda _key: None)
            return False
        return True

    def _send(self, now: float) -> None:
        if self._began is None:
            self._began = now
        index = self.tally.sent % len(self._frames)
        frame = self._frames[index]
        frame_id = f"{self.boot}-{self.tally.sent}"
        label = self._labels[index] if index < len(self._labels) else None
        self.tally.sent += 1
        self.unanswered[frame_id] = (label, now)
        if self.settings.rate is not None:
            self._next_at = max(self._next_at, now - 1.0) + 1 / self.settings.rate
        self.connection.publish(
            self.topics.frames(self.name),
            frame.data,
            qos=1,
            content_type=frame.content_type,
            correlation=frame_id.encode(),
        )
        if label is not None:
            truth = TRUTH.encode(TruthMessage(frame_id, int(label)))
            self.connection.publish(self.topics.truth(self.name), truth, qos=1)

    def _hear(self, result: Result) -> None:
        if not result.frame_id.startswith(self.boot):
            return
        if result.frame_id in self.unanswered:
            label, _ = self.unanswered.pop(result.frame_id)
        elif result.frame_id in self.given_up:
            label = self.given_up.pop(result.frame_id)
            self.tally.lost -= 1
        else:
            self.tally.duplicates += 1
            return
        if result.exit_stage is None:
            self.tally.failed += 1
        else:
            self.tally.answered += 1
            self.tally.exits[result.exit_stage] += 1
            self.tally.graded += label is not None
            self.tally.correct += label is not None and label == result.label
        self._answered(result, self.tally)


def wait_until_ready(shell: SensorShell, within_s: float, waiting: Callable[[list[str]], None]) -> None:
    """Turn the loop until the pipeline can answer; ConfigError names what is missing then."""
    deadline = time.monotonic() + within_s
    while not shell.stopping and (missing := shell.missing()):
        if shell.fault is not None:
            raise shell.fault
        if time.monotonic() > deadline:
            raise ConfigError(f"after {within_s:.0f} s the pipeline still lacks {', '.join(missing)}")
        waiting(missing)
        shell.turn()
