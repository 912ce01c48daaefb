"""Processes, brokers and databases that go away while frames are in flight: each frame answered once."""

import resource
import signal
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from live import Broker, Client, Pipeline, running, until

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.runtime.broker import free_ports, running_broker
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.wire.frames import encode_png

FRAMES = [encode_png(picture).data for picture in read_sample(SHIPPED_BUNDLE).pictures[:100]]
ALWAYS_ON = {"thresholds": [2, 2, 2]}
"""Every frame goes through every stage: the more is in flight."""

NewPipeline = Callable[[Broker], Pipeline]


def send(pipeline: Pipeline, first: int, count: int) -> None:
    """Send frames numbered from `first` without waiting for any answer."""
    for number in range(first, first + count):
        pipeline.send("cam", FRAMES[number % len(FRAMES)], CorrelationData=str(number).encode())


def obey(pipeline: Pipeline, patch: Mapping[str, object], *devices: str) -> None:
    """Change the policy and wait until devices run it."""
    pipeline.client.publish(pipeline.topics.policy_set, patch)
    for name in devices:
        pipeline.client.wait_for_last(pipeline.topics.device(name), lambda told: told["policy_version"] > 1)


def assert_answered_once(pipeline: Pipeline, count: int) -> None:
    answers = pipeline.answers("cam", count)
    assert sorted(int(answer["frame_id"]) for answer in answers) == [*range(count)]
    assert {answer["status"] for answer in answers} == {"ok"}


def rows(database: Path) -> list[tuple[str, int]]:
    """Every stored frame id and how often it is there."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT frame_id, count(*) FROM results GROUP BY frame_id").fetchall()


def wait_until_stored(pipeline: Pipeline, count: int) -> None:
    until(lambda: len(rows(pipeline.database)) >= count, lambda: len(rows(pipeline.database)))
    assert sorted((int(frame), times) for frame, times in rows(pipeline.database)) == [
        (number, 1) for number in range(count)
    ]


def test_a_device_killed_with_frames_in_flight(broker: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(broker)
    devices = pipeline.bring_up({"device-1": "1,2", "device-2": "3,4", "device-3": "1,2,3,4"})
    obey(pipeline, ALWAYS_ON, "source-1", "device-1", "device-2", "device-3")
    send(pipeline, 0, 150)
    devices["device-3"].kill()
    send(pipeline, 150, 50)
    assert_answered_once(pipeline, 200)
    gone = pipeline.client.wait_for_last(pipeline.topics.device("device-3"), lambda told: not told["online"])
    assert gone["boot"]
    wait_until_stored(pipeline, 200)


def test_a_device_asked_to_end_hands_its_tasks_on(broker: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(broker)
    devices = pipeline.bring_up({"device-1": "1,2,3,4", "device-2": "1,2,3,4"})
    obey(pipeline, ALWAYS_ON, "source-1", "device-1", "device-2")
    send(pipeline, 0, 100)
    assert devices["device-2"].stop() == 0
    assert_answered_once(pipeline, 100)
    pipeline.client.wait_for_last(pipeline.topics.device("device-2"), lambda told: not told["online"])
    assert devices["device-1"].stop(signal.SIGINT) == 0
    assert devices["source-1"].stop() == 0
    assert devices["coordinator"].stop(signal.SIGINT) == 0


def test_a_coordinator_killed_and_started_again(mosquitto: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(mosquitto)
    coordinator = pipeline.bring_up({"device-1": "1,2,3,4"})["coordinator"]
    send(pipeline, 0, 100)
    coordinator.kill()
    send(pipeline, 100, 100)
    assert_answered_once(pipeline, 200)
    pipeline.coordinator()
    send(pipeline, 200, 20)
    assert_answered_once(pipeline, 220)
    wait_until_stored(pipeline, 220)
    totals = pipeline.client.wait_for_last(pipeline.topics.metrics, lambda told: told["answered"] >= 220)
    assert totals["answered"] == 220


def test_devices_do_not_miss_a_coordinator(broker: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(broker)
    coordinator = pipeline.bring_up({"device-1": "1,2,3,4"})["coordinator"]
    coordinator.kill()
    pipeline.client.wait_for_last(pipeline.topics.coordinator, lambda said: not said["online"])
    pipeline.device("device-2", "1,2,3,4")
    pipeline.ready("device-2", 1, 2, 3, 4)
    send(pipeline, 0, 20)
    assert_answered_once(pipeline, 20)


def test_a_broker_started_again(broker: Broker, tmp_path: Path) -> None:
    port = free_ports("127.0.0.1", 2)
    phoenix = Broker(broker.kind, BrokerURL("127.0.0.1", port))
    with ExitStack() as stack:
        first_life = stack.enter_context(ExitStack())
        first_life.enter_context(running_broker(phoenix.kind, port))
        pipeline = stack.enter_context(Pipeline(phoenix, "phoenix", tmp_path))
        parts = pipeline.bring_up({"device-1": "1,2", "device-2": "3,4"})
        send(pipeline, 0, 50)
        assert_answered_once(pipeline, 50)
        wait_until_stored(pipeline, 50)
        first_life.close()
        for part in parts.values():
            part.wait_to_say("Connection refused; trying again")
        stack.enter_context(running_broker(phoenix.kind, port))
        # Nothing was kept: what is retained now was published anew.
        with Client(phoenix, f"{pipeline.topics.root}/#") as newcomer:
            topics = pipeline.topics
            for topic in (topics.device("source-1"), topics.policy, topics.manifest, topics.model_stage(4)):
                newcomer.wait_on(topic)
            pipeline.client = newcomer
            pipeline.ready("device-1", 1, 2)
            pipeline.ready("device-2", 3, 4)
            send(pipeline, 50, 50)
            newcomer.wait_on(topics.results("cam"), 50)
        wait_until_stored(pipeline, 100)
        assert [part.stop() for part in parts.values()] == [0, 0, 0, 0]


def test_a_source_that_computes(broker: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(broker)
    pipeline.source("source-1", "1,2")
    pipeline.device("device-1", "3,4")
    pipeline.coordinator()
    pipeline.ready("source-1", 1, 2)
    pipeline.ready("device-1", 3, 4)
    send(pipeline, 0, 100)
    assert_answered_once(pipeline, 100)
    answers = pipeline.answers("cam", 100)
    for answer in answers:
        early = answer["exit_stage"] <= 2
        assert answer["device"] == ("source-1" if early else "device-1")
        assert answer["hops"] == (0 if early else 1)
    assert {answer["device"] for answer in answers} == {"source-1", "device-1"}


def test_a_locked_database_keeps_results_waiting(broker: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(broker)
    coordinator = pipeline.bring_up({"device-1": "1,2,3,4"})["coordinator"]
    state = pipeline.topics.coordinator
    with closing(sqlite3.connect(pipeline.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        send(pipeline, 0, 50)
        assert_answered_once(pipeline, 50)
        said = pipeline.client.wait_for_last(state, lambda told: told.get("storage_error"))
        assert "another program keeps it locked" in said["storage_error"]
        assert rows(pipeline.database) == []
        other.execute("ROLLBACK")
    wait_until_stored(pipeline, 50)
    pipeline.client.wait_for_last(state, lambda told: "storage_error" not in told)
    assert "results wait for the database" in coordinator.said()


@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
def test_a_broker_that_comes_late(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.getfixturevalue(kind)
    port = free_ports("127.0.0.1", 2)
    late = Broker("embedded" if kind == "embedded" else "mosquitto", BrokerURL("127.0.0.1", port))
    where = ("--broker", late.address, "--pipeline", "late")
    with (
        running(tmp_path, "device", *where, "--id", "device-1") as device,
        running(tmp_path, "coordinator", *where) as coordinator,
    ):
        words = f"broker {late.address}: [Errno 111] Connection refused; trying again in 0.4 s"
        device.wait_to_say(words)
        coordinator.wait_to_say(words)
        with running_broker(late.kind, port), Pipeline(late, "late", tmp_path) as pipeline:
            pipeline.ready("device-1", 1, 2, 3, 4)
            device.wait_to_say(f"connected to {late.address}")


# The embedded broker shows neither process what the other retained: they only lose their connections.
def test_two_devices_with_one_id(mosquitto: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    first = pipeline.device("twin", "1,2")
    pipeline.ready("twin", 1, 2)
    second = pipeline.device("twin", "3")
    assert first.ended() == 2
    assert "give each its own --id" in first.said()
    assert "Traceback" not in first.said()
    pipeline.ready("twin", 3)
    assert second.process.poll() is None


def test_two_coordinators_of_one_pipeline(mosquitto: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(mosquitto)
    first = pipeline.coordinator()
    second = pipeline.start("coordinator", "--db", str(pipeline.folder / "second.db"))
    assert first.ended() == 2
    assert "was started: stop one of them" in first.said()
    assert second.process.poll() is None


def test_a_full_disk_keeps_results_waiting(mosquitto: Broker, tmp_path: Path) -> None:
    """The largest a file may grow is a limit that any user can set; to SQLite it is a disk that fails."""
    with Pipeline(mosquitto, "full-disk", tmp_path) as pipeline:
        coordinator = pipeline.bring_up({"device-1": "1,2,3,4"})["coordinator"]
        state = pipeline.topics.coordinator
        sizes = [file.stat().st_size for file in tmp_path.glob("full-disk.db*")]
        resource.prlimit(coordinator.process.pid, resource.RLIMIT_FSIZE, (max(sizes), resource.RLIM_INFINITY))
        send(pipeline, 0, 50)
        assert_answered_once(pipeline, 50)
        pipeline.client.wait_for_last(state, lambda told: told.get("storage_error"))
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(coordinator.process.pid, resource.RLIMIT_FSIZE, unlimited)
        wait_until_stored(pipeline, 50)
        pipeline.client.wait_for_last(state, lambda told: "storage_error" not in told)
