"""Frames with known ids, and the books of what became of each."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from live import PATIENCE_S, until
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.wire.frames import encode_png
from mqtt_mdi.wire.topics import Topics

FRAMES = [encode_png(picture).data for picture in read_sample(SHIPPED_BUNDLE).pictures[:100]]
WINDOW = 256
"""Frames without an answer: enough to have some everywhere, fewer than the source takes in at once."""

AGAIN_S = 3.0
STUCK_S = 60.0
LOOK_S = 0.2


class StuckError(AssertionError):
    """Nothing happens any more."""


class Station:
    """A plain client that connects again by itself and subscribes anew."""

    def __init__(
        self,
        port: int,
        topics: tuple[str, ...],
        heard: Callable[[paho.MQTTMessage], None],
        *,
        own: bool = True,
    ) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.max_inflight_messages_set(1000)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_message = lambda _client, _data, message: heard(message)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_connect = lambda *_: self._connected(topics, own=own)
        self._subscribed = threading.Event()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def __enter__(self) -> Self:
        assert self._subscribed.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _connected(self, topics: tuple[str, ...], *, own: bool) -> None:
        options = SubscribeOptions(qos=1, noLocal=not own)
        self.client.subscribe([(topic, options) for topic in topics])


@dataclass
class Books:
    """What a sensor knows of its frames; times are of this process's monotonic clock."""

    acknowledged: set[str] = field(default_factory=set)
    results: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    refused: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    again: int = 0
    last_at: float = 0.0
    silence_s: float = 0.0

    @property
    def answered(self) -> int:
        return sum(first["status"] == "ok" for first, *_ in self.results.values())

    @property
    def failed(self) -> Counter[str]:
        """Reasons of the frames that failed."""
        return Counter(first["reason"] for first, *_ in self.results.values() if first["status"] != "ok")

    @property
    def lost(self) -> set[str]:
        """Frames that the broker acknowledged to the sensor and that nobody told anything of."""
        return self.acknowledged - self.told

    @property
    def repeated(self) -> int:
        """Further copies of a result, the same in every byte."""
        return sum(len(told) - 1 for told in self.results.values() if all(one == told[0] for one in told))

    @property
    def contradicted(self) -> int:
        """Frames with two different results."""
        return sum(any(one != told[0] for one in told) for told in self.results.values())


class Traffic:
    """A sensor and whoever hears its results. The sensor may be behind a `link`.

    `again` makes it send a frame again that has had no answer for AGAIN_S, as one does that must be sure
    though its broker forgets.
    """

    def __init__(
        self, port: int, topics: Topics, sensor: str, *, link: int | None = None, again: bool = False
    ) -> None:
        self.books = Books()
        self._topic = topics.frames(sensor)
        self._replies = f"chaos/{sensor}"
        self._news = threading.Condition()
        self._sent_at: dict[str, float] = {}
        self._ids: dict[int, str] = {}
        self._acknowledged_early: set[int] = set()
        self._matching = threading.Lock()
        self._count = 0
        self._again = again
        self._listener = Station(port, (topics.results(sensor), f"{self._replies}/+"), self._hear)
        self._sensor = Station(link or port, ("$SYS/none",), lambda _message: None)
        self._sensor.client.on_publish = self._acknowledged

    def __enter__(self) -> Self:
        self._listener.__enter__()
        self._sensor.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._sensor.__exit__()
        self._listener.__exit__()

    def begin(self, count: int, rate: float | None = None) -> None:
        """Send `count` more frames: as fast as the answers come, or so many a second whatever comes back."""
        threading.Thread(target=self._stream, args=(count, rate), daemon=True).start()
        self._count += count

    def until_told(self, share: float) -> None:
        """Wait until so large a share of the frames has been told of."""
        self._wait(lambda: len(self.books.told) >= share * self._count)

    def finish(self) -> Books:
        """Wait until every frame has been told of, or nothing happens any more."""
        with suppress(StuckError):
            self._wait(lambda: min(len(self.books.told), len(self.books.acknowledged)) >= self._count)
        return self.books

    def _stream(self, count: int, rate: float | None) -> None:
        first, began = len(self._sent_at), time.monotonic()
        with suppress(StuckError):  # `finish` tells
            for number in range(first, first + count):
                if rate is None:
                    self._wait(lambda: len(self._sent_at) - len(self.books.told) < WINDOW)
                elif (early := began + (number - first) / rate - time.monotonic()) > 0:
                    time.sleep(early)
                self._send(str(number))

    def _send(self, frame_id: str) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.CorrelationData = frame_id.encode()
        properties.ResponseTopic = f"{self._replies}/{frame_id}"
        self._sent_at[frame_id] = time.monotonic()
        data = FRAMES[int(frame_id) % len(FRAMES)]
        mid = self._sensor.client.publish(self._topic, data, qos=1, properties=properties).mid
        with self._matching:
            self._ids[mid] = frame_id
            early = mid in self._acknowledged_early
        if early:
            self._acknowledged_early.discard(mid)
            self._acknowledged(None, None, mid)

    def _send_again(self) -> None:
        now, told = time.monotonic(), self.books.told
        for frame_id in self.books.acknowledged - told:
            if now - self._sent_at[frame_id] > AGAIN_S:
                self.books.again += 1
                self._send(frame_id)

    def _acknowledged(self, _client: object, _data: object, mid: int, *_: object) -> None:
        with self._matching:
            frame_id = self._ids.pop(mid, None)
            if frame_id is None:
                self._acknowledged_early.add(mid)
                return
        self.books.acknowledged.add(frame_id)
        self._tell()

    def _hear(self, message: paho.MQTTMessage) -> None:
        told = json.loads(message.payload)
        if message.topic.startswith(self._replies):
            if (told.get("reason") or "").startswith("refused: "):
                self.books.refused.add(told["frame_id"])
                self.books.told.add(told["frame_id"])
        else:
            now = time.monotonic()
            if self.books.last_at and len(self._sent_at) > len(self.books.told):
                self.books.silence_s = max(self.books.silence_s, now - self.books.last_at)
            self.books.last_at = now
            self.books.results[told["frame_id"]].append(told)
            self.books.told.add(told["frame_id"])
        self._tell()

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition for as long as anything happens."""
        seen, since = -1, time.monotonic()
        while not self._news_within(LOOK_S, condition):
            now = len(self.books.told) + len(self.books.acknowledged)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STUCK_S:
                raise StuckError(f"{len(self.books.told)} of {self._count} frames were told of, then no more")
            if self._again and threading.current_thread() is threading.main_thread():
                self._send_again()

    def _news_within(self, seconds: float, condition: Callable[[], bool]) -> bool:
        with self._news:
            return self._news.wait_for(condition, seconds)


def hears_nothing(port: int, topic: str) -> paho.Client:
    """A subscriber that never reads what it asked for."""
    deaf = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    subscribed: list[int] = []
    deaf.on_subscribe = lambda _client, _data, mid, *_: subscribed.append(mid)
    deaf.on_connect = lambda client, *_: client.subscribe(topic, 1)
    deaf.connect("127.0.0.1", port, keepalive=0)
    until(lambda: deaf.loop(0.05) or subscribed)
    return deaf
