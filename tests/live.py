"""What tests that talk to the real thing share: plain MQTT clients, processes, waiting for conditions."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqtt_mdi.runtime.broker import Kind
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.wire.topics import Topics

T = TypeVar("T")

PATIENCE_S = 60.0
LOOK_S = 0.01


def until(condition: Callable[[], T], story: Callable[[], object] = str, within_s: float = PATIENCE_S) -> T:
    """The first true value of `condition`; fails with what `story` tells when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not in {within_s} s: {story()}"
        time.sleep(LOOK_S)
    return value


@dataclass(frozen=True)
class Broker:
    """A running broker, and where it takes each version of the protocol."""

    kind: Kind
    url: BrokerURL

    @property
    def address(self) -> str:
        return str(self.url)

    @property
    def port_v311(self) -> int:
        return self.url.port + (self.kind == "embedded")


@dataclass(frozen=True)
class Heard:
    """A message that a client heard."""

    topic: str
    payload: bytes
    retain: bool
    correlation: bytes | None

    @property
    def json(self) -> Any:  # noqa: ANN401 -- whatever the message says
        return json.loads(self.payload)


class Client:
    """A plain paho client, as anybody's sensor would use: keeps every message it hears."""

    def __init__(self, broker: Broker, *topics: str, version: MQTTProtocolVersion = paho.MQTTv5) -> None:
        self.heard: list[Heard] = []
        self._news = threading.Condition()
        self._subscribed: set[int] = set()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self._client.max_inflight_messages_set(1000)
        self._client.on_message = self._arrived
        self._client.on_subscribe = self._suback
        port = broker.port_v311 if version != paho.MQTTv5 else broker.url.port
        # A connection that a busy broker leaves unanswered is tried again before patience ends.
        self._client.connect(broker.url.host, port, keepalive=10)
        self._client.loop_start()
        until(self._client.is_connected)
        self.subscribe(*topics)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, *topics: str) -> None:
        """Subscribe, and wait until the broker has."""
        for topic in topics:
            _, mid = self._client.subscribe(topic, 1)
            assert mid is not None
            until(partial(self._subscribed.__contains__, mid))

    def publish(
        self,
        topic: str,
        payload: bytes | str | Mapping[str, object],
        *,
        retain: bool = False,
        **more: object,
    ) -> None:
        """Publish and wait until the broker has it; `more` are MQTT 5 properties by paho's names."""
        if isinstance(payload, Mapping):
            payload = json.dumps(payload)
        properties = Properties(PacketTypes.PUBLISH) if more else None  # type: ignore[no-untyped-call]
        for name, value in more.items():
            setattr(properties, name, value)
        sent = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        sent.wait_for_publish(PATIENCE_S)
        assert sent.is_published(), f"the broker did not take {topic}"

    def flood(self, topic: str, payloads: Iterable[bytes]) -> None:
        """Publish many without waiting for one before the next; then wait until the broker has the last."""
        sent = [self._client.publish(topic, payload, qos=1) for payload in payloads]
        sent[-1].wait_for_publish(PATIENCE_S)
        assert sent[-1].is_published(), f"the broker did not take {topic}"

    def wait_for(
        self, wanted: Callable[[Heard], object], what: str = "a message", within_s: float = PATIENCE_S
    ) -> Heard:
        """The first message heard, now or before, for which `wanted` holds."""
        with self._news:
            found = self._news.wait_for(lambda: next(filter(wanted, self.heard), None), within_s)
        assert found, (
            f"no {what} in {within_s} s; heard {[(h.topic, h.payload[:200]) for h in self.heard[-8:]]}"
        )
        return found

    def on(self, topic: str) -> list[Heard]:
        """All that was heard on a topic so far."""
        return [message for message in list(self.heard) if message.topic == topic]

    def wait_on(self, topic: str, count: int = 1, within_s: float = PATIENCE_S) -> list[Heard]:
        """All that was heard on a topic, once there are `count`."""
        until(lambda: len(self.on(topic)) >= count, lambda: f"{len(self.on(topic))} on {topic}", within_s)
        return self.on(topic)

    def last(self, topic: str) -> Heard | None:
        """What was heard last on a topic."""
        return next(reversed(self.on(topic)), None)

    def wait_for_last(self, topic: str, wanted: Callable[[Any], object], within_s: float = PATIENCE_S) -> Any:  # noqa: ANN401 -- whatever the message says
        """What the latest message on a topic says, once `wanted` holds for it."""

        def holds() -> Any:  # noqa: ANN401
            last = self.last(topic)
            return last.json if last and last.payload and wanted(last.json) else None

        return until(holds, lambda: f"{topic}: {self.last(topic)}", within_s)

    def _arrived(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        with self._news:
            self.heard.append(Heard(message.topic, bytes(message.payload), message.retain, correlation))
            self._news.notify_all()

    def _suback(self, _client: paho.Client, _data: object, mid: int, *_rest: object) -> None:
        self._subscribed.add(mid)


@dataclass
class Process:
    """One process of `mqtt-mdi`, and the file its words go to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """All it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_to_say(self, words: str) -> str:
        """What it has said, once `words` are in it."""
        until(lambda: words in self.said() or self.process.poll() is not None, self.said)
        assert words in self.said(), f"{self.name} ended without saying {words!r}: {self.said()}"
        return self.said()

    def kill(self) -> None:
        """Unplug it."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(PATIENCE_S)


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Ours without settings of mqtt-mdi but patience, and `more`."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MDI_")}
    return ours | {"MDI_TIMEOUT": str(PATIENCE_S)} | (more or {})


@contextmanager
def running(
    folder: Path, *arguments: str, name: str | None = None, env: dict[str, str] | None = None
) -> Iterator[Process]:
    """Run `mqtt-mdi` with some arguments, in `folder`, for as long as the context lasts."""
    name = name or arguments[0]
    log = folder / f"{name}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mqtt_mdi", *arguments],
            cwd=folder,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Process(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def mqtt_mdi(
    *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `mqtt-mdi` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mqtt_mdi", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        timeout=150,
    )


class Pipeline:
    """The processes of one pipeline, started as users start them, and a client that watches them."""

    def __init__(self, broker: Broker, name: str, folder: Path) -> None:
        self.broker = broker
        self.topics = Topics(name)
        self.folder = folder
        self.env: dict[str, str] = {}
        self.database = folder / f"{name}.db"
        self._processes: list[Process] = []
        self._stack = ExitStack()
        self.client = self._stack.enter_context(Client(broker, f"{self.topics.root}/#"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:  # at once, not one after the other
            process.process.terminate()
        self._stack.close()

    def start(self, role: str, *arguments: str, name: str | None = None) -> Process:
        """Start a process of this pipeline."""
        common = ("--broker", self.broker.address, "--pipeline", self.topics.pipeline)
        process = self._stack.enter_context(
            running(self.folder, role, *common, *arguments, name=name, env=self.env)
        )
        self._processes.append(process)
        return process

    def coordinator(self, *arguments: str) -> Process:
        """Start the coordinator and wait until it serves."""
        boots = {heard.json["boot"] for heard in self.client.on(self.topics.coordinator)}
        process = self.start("coordinator", "--db", str(self.database), *arguments)
        state = self.topics.coordinator
        self.client.wait_for_last(state, lambda said: said["online"] and said["boot"] not in boots)
        self.client.wait_for(lambda heard: heard.topic == self.topics.policy, "policy")
        return process

    def device(self, name: str, stages: str, *arguments: str, role: str = "device") -> Process:
        """Start a device (or source); `ready` waits for it."""
        return self.start(role, "--id", name, "--stages", stages, *arguments, name=name)

    def source(self, name: str = "source-1", stages: str = "none", *arguments: str) -> Process:
        """Start a source."""
        return self.device(name, stages, *arguments, role="source")

    def ready(self, name: str, *stages: int) -> None:
        """Wait until a device says, now, that it holds just these stages."""
        self.client.wait_for_last(
            self.topics.device(name), lambda said: said["online"] and said["stages"] == list(stages)
        )

    def bring_up(self, devices: dict[str, str]) -> dict[str, Process]:
        """A coordinator, a source that only admits, and devices with their stages; ready to answer."""
        processes = {name: self.device(name, stages) for name, stages in devices.items()}
        processes["source-1"] = self.source()
        processes["coordinator"] = self.coordinator()
        self.ready("source-1")
        for name, stages in devices.items():
            self.ready(name, *map(int, stages.split(",")))
        return processes

    def send(self, sensor: str, data: bytes, **properties: object) -> None:
        """Send a frame as a sensor would."""
        self.client.publish(self.topics.frames(sensor), data, **properties)  # type: ignore[arg-type]

    def answers(self, sensor: str, count: int, within_s: float = 120.0) -> list[dict[str, Any]]:
        """The answers to a sensor's frames, once there are `count`."""
        return [heard.json for heard in self.client.wait_on(self.topics.results(sensor), count, within_s)]

    def dead_letter(self, reporter: str, words: str) -> dict[str, Any]:
        """The dead letter of a reporter whose reason has these words, once it is there."""
        topic = self.topics.deadletter(reporter)
        found = self.client.wait_for(
            lambda heard: heard.topic == topic and words in heard.json["reason"],
            f"dead letter of {reporter} about {words!r}",
        )
        letter: dict[str, Any] = found.json
        return letter
