"""A source with a spool: what it has acknowledged it answers, even if it must be started again for it.

A frame is on the disk before the broker is told that we have it; its result is on the disk before it is
published, and stays there until the broker has it. The broker keeps what comes while we are away.
"""

import logging
from collections import deque
from pathlib import Path

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import ANSWERED_REMEMBERED, Owed, Source
from mqtt_mdi.core.types import FrameKey, Result
from mqtt_mdi.errors import StorageError
from mqtt_mdi.runtime.device import DRAIN_S, Device, DeviceSettings, LoadStage
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.runtime.source import Admitted, SourceDevice
from mqtt_mdi.storage.spool import KeptAnswer, KeptFrame, Spool
from mqtt_mdi.wire.frames import Frame
from mqtt_mdi.wire.messages import RESULT
from mqtt_mdi.wire.topics import Topic

log = logging.getLogger(__name__)

TIDY_S = 0.05
"""Answers that the broker has may wait so long for others to be written with."""

MOST_ATTEMPTS = 100
"""The limit of `max_attempts`; each start has so many numbers of attempts to itself."""

EARLY_FRAMES = 1024
"""Frames that are taken in before the model has come, which brings the policy's own limit."""


class SpooledSource(SourceDevice):
    """The process of a source that may be killed at any time and loses no frame it has acknowledged."""

    session_s = 7 * 24 * 3600

    def __init__(
        self, settings: DeviceSettings, load: LoadStage, sensors: tuple[str, ...], spool: Path
    ) -> None:
        super().__init__(settings, load, sensors)
        self.spool = Spool(spool, settings.pipeline, ANSWERED_REMEMBERED)
        self._outdated = self.spool.outdated(self.frame_topics)
        self._left = self.spool.unsent()
        self._answered = dict.fromkeys(self.spool.answered())
        self._starts: dict[FrameKey, int] = {}
        for kept in self.spool.owed():
            frame = Frame(kept.content_type, kept.data)
            self.frames[kept.key] = Admitted(frame, kept.response_topic, kept.correlation)
            self._starts[kept.key] = kept.starts
        log.info("spool %s: %d frames owed, %d answers to send", spool, len(self.frames), len(self._left))
        self._taken: list[Message] = []
        self._unconfirmed: deque[tuple[FrameKey, object]] = deque()
        self._tidy_at = 0.0
        self._draining = False

    def serve(self) -> None:
        """Run until stopped; what is owed then waits for the next start."""
        try:
            super().serve()
            if self.fault is not None:
                raise self.fault
        finally:
            if self.fault is None:
                self._note_sent()
                self.spool.commit()
            self.spool.close()

    def connected(self) -> None:
        """Subscribe, end what an earlier start subscribed to, and publish what it had no time to."""
        for topic in self._outdated:
            self.connection.unsubscribe(topic)
        super().connected()
        self._unlisten_stages()
        left, self._left = self._left, []
        for answer in left:
            self._publish(answer)

    def received(self, message: Message, topic: Topic) -> None:
        """Hear a message; what is not acknowledged now, while we drain, comes again at the next start."""
        self._acknowledge_later(message)
        ours = not self.sensors or topic.name in self.sensors
        if topic.kind != "frames" or (ours and not self._draining):
            super().received(message, topic)

    def skipped(self, message: Message) -> None:
        """Without an acknowledgement the broker would hold it against us for good."""
        self._acknowledge_later(message)

    def model_changed(self, manifest: Manifest) -> None:
        """Have the source; an earlier start may have listened to stages that we do not hold."""
        super().model_changed(manifest)
        self._unlisten_stages()

    def new_source(self, policy: Policy, manifest: Manifest) -> Source:
        """The machine with what earlier starts owe; it begins once the policy in force is known."""
        owed = [
            Owed(key, len(admitted.frame.data), MOST_ATTEMPTS * self._starts.get(key, 0))
            for key, admitted in self.frames.items()
        ]
        answered, self._answered = self._answered, {}
        self._starts.clear()
        self.call(lambda: self.tell_source(events.Started()))
        return Source(self.name, policy, manifest.stage_count, manifest.classes, owed=owed, answered=answered)

    def fault_of(self, message: Message) -> str | None:
        """Frames may come before the model; they wait for it."""
        early = len(self.frames) - len(self._starts)
        if not message.retain and self.source is None and early < EARLY_FRAMES:
            return None
        return super().fault_of(message)

    def take_in(self, key: FrameKey, admitted: Admitted) -> None:
        """Keep a frame's bytes on the disk, too; tell a sensor again that did not hear its answer."""
        if key not in self._answered:
            frame, topic, correlation = admitted.frame, admitted.response_topic, admitted.correlation
            self.spool.keep(KeptFrame(key, frame.content_type, frame.data, topic, correlation))
            super().take_in(key, admitted)
        if key not in self.frames and (told := self.spool.answer_to(key)) is not None:
            self.publish_answer(key.sensor, told, admitted.response_topic, admitted.correlation)

    def answer(self, result: Result) -> None:
        """Keep the result; it is published once it is on the disk."""
        admitted = self.frames[result.frame]
        payload = RESULT.encode(result)
        self.spool.answer(KeptAnswer(result.frame, payload, admitted.response_topic, admitted.correlation))

    def carry_out(self, effect: object) -> None:
        """Forget on the disk, too, what is refused."""
        if isinstance(effect, effects.ReleaseFrame):
            self.spool.drop(effect.frame)
        super().carry_out(effect)

    def end_turn(self) -> None:
        """Send tasks; write; acknowledge what is written and publish the answers that are."""
        super().end_turn()
        if self.fault is not None:
            return
        self._note_sent()
        if self.spool.waiting or self.now() >= self._tidy_at:
            try:
                answers = self.spool.commit()
            except StorageError as error:
                # What we hold is in the spool, the rest with the broker: a start with room on the disk
                # goes on from there. Waiting here would let leases run out meanwhile.
                self.fail(error)
                return
            self._tidy_at = self.now() + TIDY_S
            for answer in answers:
                self._publish(answer)
        for message in self._taken:
            self.connection.acknowledge(message)
        self._taken.clear()

    def drain(self) -> None:
        """Take in nothing more, wait a while for answers; the rest stays in the spool."""
        self._draining = True
        deadline = self.now() + DRAIN_S
        while self.source is not None and self.source.leases and self.now() < deadline:
            self.turn()
        Device.drain(self)
        log.info("%d frames stay in the spool", len(self.frames))

    def _acknowledge_later(self, message: Message) -> None:
        # While we drain frames are left to the next start, and what came after them may not go before.
        if not self._draining:
            self._taken.append(message)

    def _publish(self, answer: KeptAnswer) -> None:
        self.publish_answer(answer.key.sensor, answer.result, answer.response_topic, answer.correlation)
        self._unconfirmed.append((answer.key, self.connection.published_last()))

    def _note_sent(self) -> None:
        while self._unconfirmed and self.connection.has(self._unconfirmed[0][1]):
            self.spool.sent(self._unconfirmed.popleft()[0])

    def _unlisten_stages(self) -> None:
        if self.manifest is not None:
            for stage in {spec.index for spec in self.manifest.stages} - self._ready:
                self._unlisten(stage)
