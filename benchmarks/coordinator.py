"""Results that the coordinator takes into SQLite, beside paho and sqlite3 alone; what watching it costs.

Each turn the coordinator is stopped (SIGSTOP) while results gather in the broker, and timed from when it
goes on until the last row is stored: what it can take, whoever publishes.
"""

import os
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from subprocess import Popen
from urllib.request import urlopen

import measure
import pipeline
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from security import Turns

from mqtt_mdi.cli.main import COMMANDS
from mqtt_mdi.core.types import DeviceState, Result
from mqtt_mdi.runtime.broker import free_ports
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.storage.database import Database
from mqtt_mdi.storage.tables import STORE
from mqtt_mdi.wire.messages import DEVICE_STATE, RESULT
from mqtt_mdi.wire.topics import Topics

SENSORS, DEVICES = 4, 20
UNSENT = 800
PATIENCE_S = 60.0
SCRAPE_S = 1.0
"""Prometheus' usual pause is 15 s."""

DISCOVERY = "home-assistant"
ALONE, WATCHED = "alone", "watched"
BATCH = 1000
HOST = "127.0.0.1"


class Publisher:
    """Publishes results of frames that nobody has heard of yet, and the states of some devices."""

    def __init__(self, url: BrokerURL) -> None:
        self._url = url
        self._frames = 0

    def results(self, count: int) -> list[Result]:
        """As a source makes them."""
        first, self._frames = self._frames, self._frames + count
        return [
            Result(
                f"cam{frame % SENSORS}",
                f"1a1fca35553-250116-{frame}",
                "ok",
                label=frame % 10,
                class_name="Trouser",
                score=0.9547165036201477,
                exit_stage=1 + frame % 4,
                device=f"device-{frame % DEVICES}",
                latency_ms=11.695803999828058 + frame % 50,
                hops=1,
                policy_version=1,
            )
            for frame in range(first, first + count)
        ]

    def publish(self, topics: Topics, results: Iterable[Result]) -> None:
        """Publish results."""
        self._send((topics.results(result.sensor), RESULT.encode(result), False) for result in results)

    def introduce(self, topics: Topics) -> None:
        """Devices for the page and the metrics to show."""
        states = [
            DeviceState(f"device-{number}", "b", stages=(1, 2), counters={"completed": 512}, stamp=1.0)
            for number in range(DEVICES)
        ]
        self._send((topics.device(state.device), DEVICE_STATE.encode(state), True) for state in states)

    def _send(self, messages: Iterable[tuple[str, bytes, bool]]) -> None:
        """Publish at quality 1 and wait until the broker has all, over a connection of its own."""
        connection = Connection(self._url, "bench-publisher")

        def wait(reached: Callable[[], bool]) -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not reached():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the broker takes nothing for {PATIENCE_S:.0f} s")
                connection.poll(0.05)

        with closing(connection):
            wait(lambda: connection.connected)
            for topic, payload, retain in messages:
                wait(lambda: connection.unsent() < UNSENT)
                connection.publish(topic, payload, qos=1, retain=retain)
            wait(lambda: not connection.unsent())


class Coordinator:
    """A coordinator's process that takes in what comes when it is told to."""

    def __init__(self, process: Popen[bytes], topics: Topics, database: Path) -> None:
        self.topics = topics
        self._process = process
        deadline = time.monotonic() + PATIENCE_S
        while not database.exists() or not _ready(database):
            if time.monotonic() > deadline:
                raise RuntimeError("the coordinator does not start")
            time.sleep(0.05)
        self._rows = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)

    def close(self) -> None:
        """Close the view on its rows."""
        self._rows.close()

    def take(self, publisher: Publisher, results: list[Result]) -> dict[str, float]:
        """Let results gather in the broker, then take them all into the database."""
        before = self._last_id()
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            publisher.publish(self.topics, results)
            spent = measure.cpu_seconds(self._process.pid)
        finally:
            os.kill(self._process.pid, signal.SIGCONT)
        began = time.monotonic()
        # Ids say at no cost when to count: a result that comes a second time takes one, too, and adds no row.
        while self._last_id() < before + len(results) or self._stored(before) < len(results):
            if time.monotonic() > began + PATIENCE_S:
                raise RuntimeError(f"{self._stored(before)} of {len(results)} results were stored")
            time.sleep(0.005)
        seconds = time.monotonic() - began
        spent = measure.cpu_seconds(self._process.pid) - spent
        return _figures(len(results), seconds, spent)

    def _stored(self, after: int) -> int:
        """Rows with larger ids."""
        return int(self._rows.execute("SELECT count(*) FROM results WHERE id > ?", (after,)).fetchone()[0])

    def _last_id(self) -> int:
        """The highest id given out so far."""
        row = self._rows.execute("SELECT seq FROM sqlite_sequence WHERE name = 'results'").fetchone()
        return int(row[0]) if row else 0


def _ready(database: Path) -> bool:
    """Whether a coordinator has stored its first policy, and so has subscribed."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            return bool(connection.execute("SELECT count(*) FROM policies").fetchone()[0])
        except sqlite3.OperationalError:  # its tables are being made
            return False


def _figures(count: int, seconds: float, spent: float) -> dict[str, float]:
    return {"results/s": count / seconds, "CPU a result, us": 1e6 * spent / count}


@contextmanager
def coordinating(url: BrokerURL, name: str, folder: Path, *options: str) -> Iterator[Coordinator]:
    """A coordinator of its own pipeline."""
    database = folder / f"{name}.db"
    words = [*pipeline.command("coordinator", url, name, ""), "--db", str(database), *options]
    with (
        measure.child(*words) as process,
        closing(Coordinator(process, Topics(name), database)) as coordinator,
    ):
        yield coordinator


class RawSubscriber:
    """paho as it is: hears the messages of a pipeline, acknowledges them at once and counts them."""

    def __init__(self, url: BrokerURL, topics: Topics) -> None:
        self._came = 0
        self._subscribed = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "bench-raw", protocol=paho.MQTTv5)
        self._client.on_message = self._hear
        self._client.on_subscribe = self._suback
        self._client.connect(url.host, url.port, keepalive=600)
        while not self._client.is_connected():
            self._client.loop(0.1)
        self._client.subscribe(topics.results(), 1)
        while not self._subscribed:
            self._client.loop(0.1)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()

    def take(self, count: int) -> dict[str, float]:
        """Take in what has gathered."""
        self._came = 0
        began, spent = time.monotonic(), time.thread_time()
        while self._came < count:
            self._client.loop(0.1)
        return _figures(count, time.monotonic() - began, time.thread_time() - spent)

    def _hear(self, *_: object) -> None:
        self._came += 1

    def _suback(self, *_: object) -> None:
        self._subscribed = True


class RawInserts:
    """The standard library's sqlite3 with the coordinator's tables and settings: rows alone."""

    def __init__(self, file: Path) -> None:
        Database(file, STORE).close()
        self._connection = sqlite3.connect(file)
        for pragma in STORE.pragmas:
            self._connection.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def take(self, results: list[Result]) -> dict[str, float]:
        """Insert rows, a transaction for each BATCH."""
        rows = [
            ("raw", r.sensor, r.frame_id, r.status, r.label, r.class_name, r.score, r.exit_stage, r.device,
             r.latency_ms, r.hops, r.attempts, r.policy_version, r.reason, time.time(), None)
            for r in results
        ]  # fmt: skip
        began, spent = time.monotonic(), time.thread_time()
        for first in range(0, len(rows), BATCH):
            with self._connection:
                self._connection.executemany(
                    f"INSERT INTO results VALUES (NULL{', ?' * len(rows[0])})", rows[first : first + BATCH]
                )
        return _figures(len(rows), time.monotonic() - began, time.thread_time() - spent)


def intake(rounds: int = 5, count: int = 60_000) -> list[measure.Row]:
    """The coordinator, a subscriber that stores nothing, and inserts that nobody sent; they take turns."""
    measured: list[measure.Row] = []
    with ExitStack() as stack:
        url = stack.enter_context(measure.broker())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        coordinator = stack.enter_context(coordinating(url, "intake", folder))
        publisher = Publisher(url)
        raw = stack.enter_context(closing(RawSubscriber(url, coordinator.topics)))
        inserts = stack.enter_context(closing(RawInserts(folder / "raw.db")))
        for turn in range(rounds + 1):
            results = publisher.results(count if turn else BATCH)
            ours = coordinator.take(publisher, results)
            turns = {
                "raw paho subscriber, stores nothing": raw.take(len(results)),
                "coordinator, into SQLite": ours,
                "raw inserts, nothing sent": inserts.take(results),
            }
            if turn:  # the first warms up
                measured += [{"taking in": name, **figures} for name, figures in turns.items()]
    rows = measure.medians(measured, "taking in")
    first = rows[0]
    return [
        {**row, "rate, of the first": float(str(row["results/s"])) / float(str(first["results/s"]))}
        for row in rows
    ]


class Watchers:
    """What looks at a coordinator over HTTP: an open page and a Prometheus."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._watching = threading.Semaphore(0)
        self._threads = [threading.Thread(target=work) for work in (self._look, self._scrape)]

    def start(self) -> None:
        """Begin, and wait until both have been answered."""
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            if not self._watching.acquire(timeout=PATIENCE_S):
                raise RuntimeError("the page does not answer")

    def close(self) -> None:
        """End."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        """Read the stream of events, as an open page does."""
        with self._ask("api/events") as stream:
            self._watching.release()
            while not self._over.is_set() and stream.readline():
                pass

    def _scrape(self) -> None:
        self._ask("metrics").read()
        self._watching.release()
        while not self._over.wait(SCRAPE_S):
            self._ask("metrics").read()

    def _ask(self, path: str) -> HTTPResponse:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer: HTTPResponse = urlopen(f"http://{HOST}:{self._port}/{path}", timeout=PATIENCE_S)
            except OSError:  # it is not up yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return answer


def watched(rounds: int = 5, count: int = 60_000) -> list[measure.Row]:
    """Two coordinators, one of them watched, with the same results in turn."""
    turns = Turns()
    with ExitStack() as stack:
        url = stack.enter_context(measure.broker())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        publisher = Publisher(url)
        port = free_ports(HOST, 1)
        page = ("--http", f"{HOST}:{port}")
        rivals = [
            stack.enter_context(coordinating(url, name, folder, *options))
            for name, options in {ALONE: (), WATCHED: page}.items()
        ]
        for rival in rivals:
            publisher.introduce(rival.topics)
        what = ["page", "metrics"]
        if DISCOVERY in COMMANDS:
            stack.enter_context(measure.child(*pipeline.command(DISCOVERY, url, WATCHED, "")))
            what.append(DISCOVERY)
        watchers = stack.enter_context(closing(Watchers(port)))
        watchers.start()
        for turn in range(rounds + 1):
            # who goes first may find the machine in another mood
            order = rivals if turn % 2 else rivals[::-1]
            taken = {
                rival.topics.pipeline: rival.take(publisher, publisher.results(count if turn else BATCH))
                for rival in order
            }
            if turn:
                turns.add(" + ".join(what), taken[ALONE], taken[WATCHED])
    return turns.rows()


def main() -> None:
    """Print both tables alone."""
    measure.table("Results taken in", intake())
    measure.table("What watching costs", watched())


if __name__ == "__main__":
    main()
