"""A broker that takes small packets alone: who would send a larger one says so, and goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from live import Broker, Pipeline
from secured import mosquitto_of_its_own

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.wire.tensors import encode_tensor

LARGEST = 40_000
BUNDLE = ("--bundle", str(SHIPPED_BUNDLE))


@pytest.fixture
def narrow(tmp_path: Path, mosquitto: Broker) -> Iterator[Broker]:
    del mosquitto  # there is one
    with mosquitto_of_its_own(tmp_path, "allow_anonymous true", f"max_packet_size {LARGEST}") as url:
        yield Broker("mosquitto", url)


def test_a_frame_that_grows_too_large_on_its_way_fails_alone(
    narrow: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(narrow)
    pipeline.device("device-1", "all", *BUNDLE)
    source = pipeline.source("source-1", "none", *BUNDLE)
    pipeline.ready("device-1", 1, 2, 3, 4)
    pipeline.ready("source-1")
    room = LARGEST - len(pipeline.topics.frames("cam")) - len(encode_tensor(np.zeros((1, 100), np.uint8)))
    pipeline.send("cam", encode_tensor(np.zeros((1, room), np.uint8)))
    pipeline.send("cam", encode_tensor(np.zeros((28, 28), np.uint8)))
    failed, answered = sorted(pipeline.answers("cam", 2), key=lambda answer: answer["status"] == "ok")
    assert "is more than the broker takes" in failed["reason"]
    assert answered["status"] == "ok"
    assert "connection to" not in source.said()


def test_a_graph_that_is_too_large_ends_the_coordinator_with_the_reason(
    narrow: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(narrow)
    coordinator = pipeline.start("coordinator")
    assert coordinator.ended() != 0
    assert "stage 3: its graph of" in coordinator.said()
    assert "raise its max_packet_size" in coordinator.said()
    assert pipeline.client.wait_for_last(pipeline.topics.coordinator, lambda told: not told["online"])
