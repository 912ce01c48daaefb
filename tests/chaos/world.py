"""A private broker, a coordinator, a source with a spool and three devices that hold each stage twice."""

import json
import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self

from live import Process, running, until
from paho.mqtt import client as paho

from chaos.proxy import Link
from chaos.traffic import Books, Station
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker import _MOSQUITTO, _wait_for, free_ports, mosquitto_program
from mqtt_mdi.wire.topics import Topics

HOST = "127.0.0.1"
TOPICS = Topics("chaos")
DEVICES = {"device-1": "1,2", "device-2": "2,3,4", "device-3": "1,3,4"}
SOURCE = "source-1"
SPOOLED = {SOURCE: ("--spool", "source.spool")}
SENSOR = "sensor"
PAGE = os.sysconf("SC_PAGE_SIZE")


class World:
    """Everything that can be struck.

    The parts named in `behind_links`, and a sensor that wants it, reach the broker over `links`. `emulate`
    makes the devices slower, in multiply-adds a second; `sources` have options of their own.
    """

    def __init__(
        self,
        *,
        persistence: bool = False,
        behind_links: tuple[str, ...] = (),
        emulate: float | None = None,
        sources: Mapping[str, tuple[str, ...]] = SPOOLED,
    ) -> None:
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mdi-chaos-")))
        self.port = free_ports(HOST, 1)
        self._persistence = persistence
        self._broker: subprocess.Popen[bytes] | None = None
        self._behind_links = behind_links
        self._emulate = emulate
        self._sources = sources
        self.links: dict[str, Link] = {}
        self._parts: dict[str, tuple[AbstractContextManager[Process], Process]] = {}
        self.said: dict[str, Any] = {}
        self.dead_letters: list[str] = []
        self.clock = self.folder / "clock"
        paths = [str(Path(__file__).parent / "clock"), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {"MDI_CHAOS_CLOCK": str(self.clock), "PYTHONPATH": os.pathsep.join(paths)}

    def __enter__(self) -> Self:
        self.start_broker()
        self._stack.callback(self._stop)
        for name in (*self._behind_links, SENSOR):
            self.links[name] = self._stack.enter_context(Link(HOST, self.port))
        heard = ("devices/+/state", "coordinator/state", "metrics", "policy", "deadletter/+")
        self.watcher = self._stack.enter_context(
            Station(self.port, tuple(f"{TOPICS.root}/{topic}" for topic in heard), self._hear)
        )
        for name in self._names:
            self.start(name)
        self.ready(*self._names)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str) -> None:
        """Start a part, or start it again."""
        port = self.links[name].port if name in self.links else self.port
        arguments = ["--broker", f"mqtt://{HOST}:{port}", "--pipeline", TOPICS.pipeline]
        if name == "coordinator":
            arguments = [name, *arguments, "--db", str(self.folder / "results.db")]
        elif name in self._sources:
            arguments = ["source", *arguments, "--id", name, *self._sources[name]]
        else:
            emulate = ["--emulate", str(self._emulate)] if self._emulate else []
            arguments = ["device", *arguments, "--id", name, "--stages", DEVICES[name], *emulate]
        context = running(self.folder, *arguments, name=name, env=self.env)
        self._parts[name] = context, context.__enter__()

    def kill(self, name: str) -> None:
        """Unplug a part."""
        self.said.pop(self._state_topic(name), None)
        context, part = self._parts.pop(name)
        part.kill()
        context.__exit__(None, None, None)

    def restart(self, name: str) -> None:
        """Unplug a part, plug it in again, wait until it serves."""
        self.kill(name)
        self.start(name)
        self.ready(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Freeze or thaw a part."""
        self._parts[name][1].process.send_signal(number)

    def ready(self, *names: str) -> None:
        """Wait until parts serve, each in the process that runs now."""
        for name in names:
            until(lambda name=name: self._serves(name), lambda: f"{self.said}", within_s=120.0)  # type: ignore[misc]

    def start_broker(self) -> None:
        """Start the broker at the port it always has."""
        config = self.folder / "mosquitto.conf"
        text = _MOSQUITTO.format(port=self.port, host=HOST)
        if self._persistence:
            kept = f"persistence true\npersistence_location {self.folder}/\nautosave_interval 1\nuser root"
            text = text.replace("persistence false", kept)
        config.write_text(text)
        program = mosquitto_program()
        if program is None:
            raise ConfigError("no mosquitto: install it, the faults need a broker of their own")
        with (self.folder / "mosquitto.log").open("ab") as output:
            self._broker = subprocess.Popen([program, "-c", str(config)], stdout=output, stderr=output)
        broker = self._broker
        _wait_for(HOST, self.port, lambda: broker.poll() is None, lambda: "see mosquitto.log")

    def restart_broker(self) -> None:
        """Kill the broker as a power cut would, start it again, wait until everybody is back."""
        assert self._broker is not None
        self._broker.kill()
        self._broker.wait()
        self.said.clear()
        self.start_broker()
        self.ready(*self._names)

    def policy(self, patch: dict[str, object]) -> None:
        """Change the policy and wait until everybody runs it."""
        version = self.said[TOPICS.policy]["version"]
        self.watcher.client.publish(TOPICS.policy_set, json.dumps(patch), qos=1)
        for name in (*DEVICES, *self._sources):
            topic = TOPICS.device(name)
            until(lambda topic=topic: self.said[topic]["policy_version"] > version, lambda: f"{self.said}")  # type: ignore[misc]

    def memory(self) -> dict[str, int]:
        """Resident bytes of the broker and every part, shared pages included (proc(5), /proc/pid/statm)."""
        assert self._broker is not None
        processes = {"broker": self._broker} | {name: part.process for name, (_, part) in self._parts.items()}
        return {
            name: PAGE * int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            for name, process in processes.items()
        }

    def stored(self, sensor: str, books: Books) -> int:
        """How many of a sensor's results are in the coordinator's database, once all are or time is up."""

        def rows() -> list[tuple[str, int]]:
            with closing(sqlite3.connect(self.folder / "results.db")) as connection:
                return connection.execute(
                    "SELECT frame_id, count(*) FROM results WHERE sensor = ? GROUP BY frame_id", (sensor,)
                ).fetchall()

        deadline = time.monotonic() + 20.0
        while len(found := rows()) < len(books.results) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert all(count == 1 for _, count in found)
        return len({frame for frame, _ in found} & books.results.keys())

    def logs(self) -> str:
        """What every part has said."""
        return "\n".join(
            f"{log.name}: {log.read_text(errors='replace')[-2000:]}" for log in self.folder.glob("*.log")
        )

    def counters(self, name: str) -> dict[str, int]:
        """What a device told last of its counters."""
        return dict(self.said[TOPICS.device(name)]["counters"])

    @property
    def _names(self) -> tuple[str, ...]:
        return ("coordinator", *DEVICES, *self._sources)

    def _serves(self, name: str) -> bool:
        _, part = self._parts[name]
        assert part.process.poll() is None, f"{name} ended: {part.said()[-2000:]}"
        said = self.said.get(self._state_topic(name))
        if said is None or not said["online"]:
            return False
        stages = DEVICES.get(name)
        return stages is None or said["stages"] == [int(stage) for stage in stages.split(",")]

    def _state_topic(self, name: str) -> str:
        return TOPICS.coordinator if name == "coordinator" else TOPICS.device(name)

    def _hear(self, message: paho.MQTTMessage) -> None:
        if message.topic.startswith(TOPICS.deadletter("")):
            self.dead_letters.append(message.payload.decode(errors="replace"))
        elif message.payload:
            self.said[message.topic] = json.loads(message.payload)

    def _stop(self) -> None:
        for name in list(self._parts):
            self.kill(name)
        if self._broker is not None:
            self._broker.kill()
            self._broker.wait()


@contextmanager
def frozen(world: World, name: str) -> Iterator[None]:
    """A part that does nothing for as long as the context lasts."""
    world.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        world.signal(name, signal.SIGCONT)
