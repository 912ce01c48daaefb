"""Processes that are told to stop: they leave nothing owed, and they do stop."""

import signal
from collections.abc import Callable
from pathlib import Path

from live import Broker, Pipeline, running, until

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.core.types import Result
from mqtt_mdi.runtime.broker import free_ports
from mqtt_mdi.runtime.client import RECEIVE_MAXIMUM
from mqtt_mdi.wire.frames import encode_png
from mqtt_mdi.wire.messages import RESULT


def test_a_source_told_to_stop_answers_what_it_owes(
    broker: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(broker)
    pipeline.coordinator()
    pipeline.device("slow", "all", "--emulate", "1e6")
    source = pipeline.source()
    pipeline.ready("slow", 1, 2, 3, 4)
    pipeline.ready("source-1")
    picture = encode_png(read_sample(SHIPPED_BUNDLE).pictures[0]).data
    for number in range(12):
        pipeline.send("cam", picture, CorrelationData=str(number).encode())
    states = pipeline.topics.device("source-1")
    pipeline.client.wait_for_last(states, lambda said: said["counters"].get("admitted") == 12)
    assert source.stop() == 0
    answers = pipeline.answers("cam", 12)
    assert {answer["frame_id"] for answer in answers} == {str(number) for number in range(12)}
    failed = [answer for answer in answers if answer["status"] == "failed"]
    assert failed
    assert all("stopped" in answer["reason"] for answer in failed)


def test_a_sensor_without_a_broker_ends_when_told(tmp_path: Path) -> None:
    port = free_ports("127.0.0.1", 1)
    with running(tmp_path, "sensor", "--broker", f"mqtt://127.0.0.1:{port}") as sensor:
        until(lambda: "trying again" in sensor.said(), sensor.said)
        sensor.stop(signal.SIGINT)


def test_an_answer_to_where_nobody_may_publish_harms_nobody(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    patch = {"window": 7}
    pipeline.client.publish(pipeline.topics.policy_set, patch, ResponseTopic="mdi/#")
    pipeline.client.wait_for_last(pipeline.topics.policy, lambda said: said["window"] == 7)
    pipeline.client.publish(pipeline.topics.policy_set, {"window": 8})
    pipeline.client.wait_for_last(pipeline.topics.policy_result, lambda said: said["accepted"])
    assert not pipeline.client.on(pipeline.topics.deadletter("coordinator"))


def test_results_of_unspeakable_sensors_do_not_stop_the_coordinator(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    """More of them than the broker may leave unacknowledged; then one that is to be stored."""
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    pipeline.client.flood(pipeline.topics.results("cam 1"), [b"{}"] * (RECEIVE_MAXIMUM + 1))
    good = Result("cam1", "1", "ok", label=1, exit_stage=1)
    pipeline.client.publish(pipeline.topics.results("cam1"), RESULT.encode(good))
    pipeline.client.wait_for_last(pipeline.topics.metrics, lambda said: said["answered"] == 1)
