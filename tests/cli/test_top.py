"""`mqtt-mdi top`: who is there and what they do, once and live."""

import re
import signal
import time
from pathlib import Path
from threading import Event, Thread

import pytest
from live import Broker, Client, Pipeline, mqtt_mdi, running, until
from secured import OBSERVER, Peer, secured_broker

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Result
from mqtt_mdi.runtime.broker import free_ports, running_broker
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.wire.messages import (
    COORDINATOR_STATE,
    DEVICE_STATE,
    METRICS,
    POLICY,
    RESULT,
    CoordinatorState,
    Metrics,
)
from mqtt_mdi.wire.topics import Topics

METRIC = Metrics(55.5, 100, 2, 1, 50, (60, 40), 1, 7, 0.9, 4.0, 8.0)


def row(output: str, device: str) -> list[str]:
    """The cells of a device's row."""
    (found,) = [line for line in output.splitlines() if line.startswith(f" {device} ")]
    return found.split()


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True, scope="session")
def test_once_tells_of_a_running_pipeline(shared_pipeline: Pipeline, tmp_path: Path) -> None:
    where = ("--broker", shared_pipeline.broker.address, "--pipeline", shared_pipeline.topics.pipeline)
    with running(tmp_path, "sensor", *where, "--id", "topped", "--frames", "0", "--rate", "50"):
        shared_pipeline.answers("topped", 50)
        done = mqtt_mdi("top", *where, "--once", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{shared_pipeline.topics.pipeline} on {shared_pipeline.broker.address}: connected" in done.stdout
    assert "coordinator: online" in done.stdout
    assert re.search(r"policy: version \d+, strategy mdi-exit, thresholds 0\.\d+", done.stdout)
    assert re.search(r"throughput: [1-9]\d*\.\d/s  latency: p50 .* accuracy: \d+\.\d+% of \d+", done.stdout)
    assert re.search(r"left at exit 1: \d", done.stdout)
    assert row(done.stdout, "device-1")[:4] == ["device-1", "device", "online", "1,2"]
    source = row(done.stdout, "source-1")
    assert source[:4] == ["source-1", "source", "online", "-"]
    assert float(source[8]) > 0
    assert sum(float(row(done.stdout, f"device-{k}")[8]) for k in (1, 2, 3)) > 0


def test_rates_come_from_counters_and_the_devices_own_clock(mosquitto: Broker, tmp_path: Path) -> None:
    topics, ended = Topics("rated"), Event()

    def state(stamp: float) -> bytes:
        counters = {"completed": int(100 * stamp), "bad_messages": 3}
        return DEVICE_STATE.encode(
            DeviceState("d1", "boot", stages=(1, 2), input_queue=5, output_queue=6, running=1,
                        service_s=0.0125, counters=counters, policy_version=7, stamp=stamp)
        )  # fmt: skip

    with Client(mosquitto) as client:
        client.publish(topics.device("d1"), state(1.0), retain=True)
        client.publish(topics.policy, POLICY.encode(Policy(version=7, thresholds=(0.25,))), retain=True)
        client.publish(topics.metrics, METRICS.encode(METRIC), retain=True)
        broken = CoordinatorState(online=False, boot="b", storage_error="disk\x1b[2J full")
        client.publish(topics.coordinator, COORDINATOR_STATE.encode(broken), retain=True)

        def report() -> None:
            for stamp in range(2, 10_000):
                client.publish(topics.device("d1"), state(float(stamp)))
                if ended.wait(0.05):
                    return

        reporting = Thread(target=report)
        reporting.start()
        done = mqtt_mdi("top", "--broker", mosquitto.address, "--pipeline", "rated", "--once", cwd=tmp_path)
        ended.set()
        reporting.join()
    assert done.returncode == 0, done.stderr
    cells = row(done.stdout, "d1")
    assert cells[:11] == ["d1", "device", "online", "1,2", "5", "6", "1", "12.50", "100.0", "3", "7"]
    assert "coordinator: offline, cannot store: disk?[2J full" in done.stdout
    assert "policy: version 7, strategy mdi-exit, thresholds 0.25" in done.stdout
    assert "throughput: 55.5/s  latency: p50 4.0 ms, p95 8.0 ms  accuracy: 90.00% of 50" in done.stdout
    assert "(as last known)" in done.stdout
    assert "answered: 100  failed: 2  doubled: 1" in done.stdout
    assert "dead letters of devices and sources: 3" in done.stdout
    assert "left at exit 1: 60.0%  2: 40.0%" in done.stdout


def test_who_is_gone_and_who_says_nothing(mosquitto: Broker, tmp_path: Path) -> None:
    topics = Topics("quiet")
    with Client(mosquitto) as client:
        client.publish(
            topics.device("gone"), DEVICE_STATE.encode(DeviceState("gone", "b", online=False)), retain=True
        )
        client.publish(topics.device("mute"), DEVICE_STATE.encode(DeviceState("mute", "b")), retain=True)
        client.publish(topics.device("odd"), b"{}", retain=True)
        policy = Policy(version=1, thresholds=(), silence_s=0.5)
        client.publish(topics.policy, POLICY.encode(policy), retain=True)
        where = ("--broker", mosquitto.address, "--pipeline", "quiet")
        began = time.monotonic()
        done = mqtt_mdi("top", *where, "--once", "--timeout", "5", cwd=tmp_path)
        assert time.monotonic() - began < 45
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "gone")[2] == "gone"
    assert row(done.stdout, "mute")[2] == "silent"
    assert row(done.stdout, "mute")[-1].startswith(">")
    assert "coordinator: never seen" in done.stdout
    assert "bad message on mdi/v1/quiet/devices/odd/state" in done.stderr


def test_nobody_there(mosquitto: Broker, tmp_path: Path) -> None:
    where = ("--broker", mosquitto.address, "--pipeline", "nobody")
    done = mqtt_mdi("top", *where, "--once", "--timeout", "5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: nobody of pipeline nobody was ever on {mosquitto.address}" in done.stderr
    done = mqtt_mdi("top", "--broker", "mqtt://127.0.0.1:9", "--once", "--timeout", "0.5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: broker mqtt://127.0.0.1:9 cannot be reached" in done.stderr


def test_live_it_outlives_the_broker(tmp_path: Path) -> None:
    port, topics = free_ports("127.0.0.1", 1), Topics("demo")
    broker = Broker("mosquitto", BrokerURL("127.0.0.1", port))
    terminal = {"TTY_COMPATIBLE": "1", "COLUMNS": "120", "LINES": "30"}
    with running(tmp_path, "top", "--broker", broker.address, env=terminal) as top:
        top.wait_to_say("NOT CONNECTED, trying again: broker")
        for device in ("one", "two"):
            with running_broker("mosquitto", port), Client(broker) as client:
                state = DEVICE_STATE.encode(DeviceState(device, "boot", stages=(1,)))
                client.publish(topics.device(device), state, retain=True)
                top.wait_to_say(f" {device} ")
            seen = len(top.said())
            until(lambda seen=seen: "NOT CONNECTED" in top.said()[seen:], top.said)
        assert " one " not in top.said()[seen:]
        assert top.stop(signal.SIGINT) == 0
    assert "Traceback" not in top.said()
    assert "WARNING" not in top.said(), "a line of the log would tear the table"


def test_a_viewer_may_run_it(tmp_path: Path) -> None:
    topics = Topics("demo")
    with (
        secured_broker(tmp_path, "demo:\n  viewer: [screen]") as secured,
        Peer(secured.url(OBSERVER)) as observer,
    ):
        observer.publish(DEVICE_STATE.encode(DeviceState("d1", "b")), topics.device("d1"), retain=True)
        policy = POLICY.encode(Policy(version=7, thresholds=(0.25,)))
        observer.publish(policy, topics.policy, retain=True)
        observer.publish(METRICS.encode(METRIC), topics.metrics, retain=True)
        there = COORDINATOR_STATE.encode(CoordinatorState(online=True, boot="b"))
        observer.publish(there, topics.coordinator, retain=True)
        screen = secured.environment("screen")
        done = mqtt_mdi("top", "--once", "--timeout", "10", cwd=tmp_path, env=screen)
        assert done.returncode == 0, done.stderr
        assert row(done.stdout, "d1")[:2] == ["d1", "device"]
        assert "coordinator: online" in done.stdout
        assert "policy: version 7" in done.stdout
        assert "throughput: 55.5/s" in done.stdout
        with running(tmp_path, "watch", "--count", "1", env=screen) as watching:
            answer = RESULT.encode(Result("cam1", "shot-1", "ok", 1, "one", 0.9, 1, "d1"))

            def ended() -> bool:
                observer.publish(answer, topics.results("cam1"))
                return watching.process.poll() is not None

            until(ended, watching.said)
        assert "1 answered, 0 failed" in watching.said()
