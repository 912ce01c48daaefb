"""`/metrics`: what it tells is what the coordinator knows, and the database holds."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from live import Broker, Pipeline, until
from pages import Server, rows, send_sample, shown, where
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as families
from secured import mosquitto_with

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.core import events
from mqtt_mdi.core.replanning import Move
from mqtt_mdi.core.system import Plan
from mqtt_mdi.core.types import DeviceState
from mqtt_mdi.runtime.broker import free_ports
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.coordinator import CoordinatorSettings, CoordinatorShell
from mqtt_mdi.web.exposition import SightCollector
from mqtt_mdi.web.metrics import markdown
from mqtt_mdi.web.sight import MOST_DEVICES, observe

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "metrics.md"

Values = dict[tuple[str, tuple[str, ...]], float]


def values(text: str) -> Values:
    """Each sample by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, tuple(value for _name, value in sorted(sample.labels.items()))): sample.value
        for family in families(text)
        for sample in family.samples
    }


def scrape(server: Server) -> Values:
    return values(server.ask("/metrics").body.decode())


@pytest.fixture(scope="module")
def running(
    mosquitto: Broker, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Pipeline, Server]]:
    with shown(mosquitto, next(names), tmp_path_factory.mktemp("metrics")) as (pipeline, server, _):
        send_sample(pipeline, "cam1", 40)
        yield pipeline, server


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[CoordinatorShell]:
    """A coordinator that has not begun to serve: its thread is the test's."""
    settings = CoordinatorSettings(BrokerURL("127.0.0.1", 9), "still", SHIPPED_BUNDLE, tmp_path / "still.db")
    shell = CoordinatorShell(settings)
    yield shell
    shell.connection.close()
    shell.store.close()


def told(shell: CoordinatorShell) -> Values:
    return values(generate_latest(SightCollector(observe(shell))).decode())


def test_the_metrics_say_what_the_database_holds(running: tuple[Pipeline, Server]) -> None:
    pipeline, server = running
    told = until(lambda: (now := scrape(server))["mdi_frames_graded_total", ()] >= 40 and now)
    count = "SELECT count(*) FROM results WHERE status = 'ok'"
    assert rows(pipeline.database, count) == [(told["mdi_frames_answered_total", ()],)]
    right = "SELECT count(*) FROM results WHERE correct"
    assert rows(pipeline.database, right) == [(told["mdi_frames_correct_total", ()],)]
    by_exit = dict(rows(pipeline.database, "SELECT exit_stage, count(*) FROM results GROUP BY 1"))
    assert [told["mdi_exit_frames_total", (str(k),)] for k in range(1, 5)] == [
        by_exit.get(k, 0) for k in range(1, 5)
    ]
    [(quick,)] = rows(pipeline.database, "SELECT count(*) FROM results WHERE latency_ms <= 100")
    assert told["mdi_frame_latency_seconds_bucket", ("0.1",)] == quick
    assert told["mdi_frame_latency_seconds_count", ()] == told["mdi_frames_answered_total", ()]
    assert told["mdi_build_info", ("fashion-mnist", pipeline.topics.pipeline, __version__)] == 1
    assert told["mdi_devices", ("device", "online")] == 3
    assert told["mdi_device_online", ("source-1", "source")] == 1
    assert told["mdi_device_stage_held", ("device-2", "4")] == 1
    books = ("mdi_source_frames_admitted_total", ("source-1",))
    until(lambda: scrape(server)[books] == 40)


def test_what_mosquitto_drops_is_told(mosquitto: Broker, tmp_path: Path) -> None:  # noqa: ARG001 -- skips
    port = free_ports("127.0.0.1", 1)
    small = f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 10\nsys_interval 1\n"
    dropped = ("mdi_broker_dropped_messages_total", ())
    with (
        mosquitto_with(small, tmp_path, port),
        Pipeline(Broker("mosquitto", BrokerURL("127.0.0.1", port)), "small", tmp_path) as pipeline,
        closing(Connection(pipeline.broker.url, "away", session_expiry_s=60)) as away,
    ):
        server = where(pipeline.coordinator("--http", ":0", "--watch-broker"))
        assert scrape(server)[dropped] == 0
        away.on_connected = lambda: away.subscribe("photos", qos=1)
        until(lambda: away.connected or away.poll(0.1))
        until(lambda: pipeline.client.publish("photos", b"heard") or away.poll(0.1))
        away.close()
        pipeline.client.flood("photos", [b"missed"] * 50)
        until(lambda: scrape(server)[dropped] >= 40, lambda: scrape(server)[dropped])


def test_promtool_finds_no_fault(running: tuple[Pipeline, Server]) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on PATH: apt-get install prometheus")
    _, server = running
    answer = server.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=answer.body, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_who_asks_for_openmetrics_gets_it(running: tuple[Pipeline, Server]) -> None:
    _, server = running
    answer = server.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0, text/plain; q=0.5")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in openmetrics.text_string_to_metric_families(answer.body.decode())}
    assert {"mdi_frames_answered", "mdi_frame_latency_seconds"} <= names


def test_a_scrape_needs_the_token_as_the_page_does(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    server = where(new_pipeline(mosquitto).coordinator("--http", "0.0.0.0:0"))
    assert server.ask("/metrics").status == 401
    assert server.ask("/metrics", Authorization="Bearer of nothing").status == 401
    answer = server.ask("/metrics", Authorization=f"Bearer {server.token}", Host="coordinator:8080")
    assert (answer.status, b"mdi_build_info" in answer.body) == (200, True)


def test_it_is_told_while_the_database_is_locked(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(mosquitto)
    server = where(pipeline.coordinator("--http", ":0"))
    result = {"sensor": "cam", "frame_id": "1", "status": "ok", "label": 1, "exit_stage": 2, "latency_ms": 7}
    with closing(sqlite3.connect(pipeline.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        pipeline.client.publish(pipeline.topics.results("cam"), result)
        locked = until(lambda: (now := scrape(server))["mdi_storage_failing", ()] and now)
        assert locked["mdi_storage_waiting_messages", ()] == 1
        assert locked["mdi_frames_answered_total", ()] == 0
    freed = until(lambda: (now := scrape(server))["mdi_frames_answered_total", ()] and now)
    assert freed["mdi_storage_failing", ()] == freed["mdi_storage_waiting_messages", ()] == 0
    assert freed["mdi_frame_latency_seconds_bucket", ("0.01",)] == 1
    assert freed["mdi_frame_latency_seconds_bucket", ("0.005",)] == 0


def test_of_a_device_that_is_gone_the_counters_stay(shell: CoordinatorShell) -> None:
    state = DeviceState(
        "pi-1", "b", stages=(2,), input_queue=3, counters={"completed": 7, "odd": 1}, memory=9
    )
    shell.tell(events.NeighbourReported(state))
    here = told(shell)
    assert here["mdi_device_input_queue_tasks", ("pi-1",)] == 3
    assert here["mdi_device_memory_limit_bytes", ("pi-1",)] == 9
    assert not [name for name, _ in here if "odd" in name]
    shell.tell(events.NeighbourLost("pi-1"))
    gone = {name: value for (name, labels), value in told(shell).items() if "pi-1" in labels}
    assert gone["mdi_device_online"] == 0
    assert gone["mdi_device_tasks_completed_total"] == 7
    assert not {"mdi_device_input_queue_tasks", "mdi_device_stage_held"} & gone.keys()


def test_odd_names_are_escaped(shell: CoordinatorShell) -> None:
    odd = 'a "quoted"\\ and\nbroken naïve {name}'
    shell.tell(events.NeighbourReported(DeviceState(odd, "b")))
    assert told(shell)["mdi_device_online", (odd, "device")] == 1


def test_thousands_of_devices_are_bounded(shell: CoordinatorShell) -> None:
    for number in range(MOST_DEVICES):
        shell.tell(events.NeighbourReported(DeviceState(f"a-{number}", "b", online=False)))
    for number in range(1000):
        shell.tell(events.NeighbourReported(DeviceState(f"b-{number}", "b", stages=(1, 2))))
    now = told(shell)
    assert now["mdi_devices", ("device", "online")] == 1000
    assert now["mdi_devices", ("device", "offline")] == MOST_DEVICES
    shown = [value for (name, _), value in now.items() if name == "mdi_device_online"]
    assert (len(shown), sum(shown)) == (MOST_DEVICES, 1000)


def test_the_planner_is_in_one_state(shell: CoordinatorShell) -> None:
    def state() -> str:
        [now] = [k for (name, k), value in told(shell).items() if name == "mdi_planner_state" and value]
        return now[0]

    assert state() == "off"
    shell.machine.policy = shell.machine.policy.model_copy(update={"strategy": "planner"})
    assert state() == "idle"
    replanner = shell.machine.replanner
    replanner.move = Move(Plan(1.0, 1.0, (), {}, {}), "test", 0.0, "let go")
    assert state() == "releasing"
    replanner.solving = True
    assert state() == "solving"


def test_the_documents_have_the_table_of_the_code() -> None:
    assert markdown() in HOWTO.read_text(), (
        "put what `python -m mqtt_mdi.web.metrics` prints into docs/howto/metrics.md"
    )
