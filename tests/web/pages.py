"""What the tests of the page share: a pipeline whose coordinator serves one, and plain HTTP."""

import json
import sqlite3
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from live import PATIENCE_S, Broker, Pipeline, Process

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.wire.frames import encode_png

STAGES = {"device-1": "1,2", "device-2": "2,3,4", "device-3": "1,3,4"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 -- whatever the server says
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A page that is served: its address with the token, if it has one; `ca` is the authority to trust."""

    url: str
    ca: Path | None = None

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    @property
    def token(self) -> str:
        return urlsplit(self.url).query.removeprefix("token=")

    def ask(self, path: str, body: object = None, *, method: str | None = None, **headers: str) -> Answer:
        """Ask; a body makes it a POST of JSON. Headers by their names with _ for -."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            named = {"Content-Type": "application/json", **named}
        with closing(self.connection()) as connection:
            connection.request(method or ("GET" if body is None else "POST"), path, data, named)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def connection(self) -> HTTPConnection:
        """A connection of one's own."""
        if not self.url.startswith("https:"):
            return HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        context = ssl.create_default_context(cafile=self.ca)
        return HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE_S, context=context)

    def edit(self, patch: object, expected: int | None = None) -> Answer:
        """Change the policy."""
        return self.ask("/api/policy", {"patch": patch, "expected": expected})

    @property
    def now(self) -> Any:  # noqa: ANN401 -- JSON
        return self.ask("/api/snapshot").json


def where(coordinator: Process) -> Server:
    """The page of a coordinator that serves one."""
    said = coordinator.wait_to_say("the page is on ")
    return Server(said.partition("the page is on ")[2].split()[0])


@contextmanager
def shown(broker: Broker, name: str, folder: Path) -> Iterator[tuple[Pipeline, Server, dict[str, Process]]]:
    """Three devices, a source, and a coordinator with its page."""
    with Pipeline(broker, name, folder) as pipeline:
        processes = {device: pipeline.device(device, stages) for device, stages in STAGES.items()}
        processes["source-1"] = pipeline.source()
        processes["coordinator"] = pipeline.coordinator("--http", ":0", "--watch-broker")
        server = where(processes["coordinator"])
        pipeline.ready("source-1")
        for device, stages in STAGES.items():
            pipeline.ready(device, *map(int, stages.split(",")))
        yield pipeline, server, processes


def send_sample(pipeline: Pipeline, sensor: str, count: int) -> None:
    """Some of the sample pictures with their truth, and wait for their answers."""
    sample = read_sample(SHIPPED_BUNDLE)
    for index in range(count):
        name = f"{sensor}-{index}"
        pipeline.send(sensor, encode_png(sample.pictures[index]).data, CorrelationData=name.encode())
        truth = {"frame_id": name, "label": int(sample.labels[index])}
        pipeline.client.publish(pipeline.topics.truth(sensor), truth)
    pipeline.answers(sensor, count)


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """What the database says."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()
