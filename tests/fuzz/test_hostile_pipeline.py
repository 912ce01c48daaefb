"""Hostile bytes on every topic of a running pipeline: all processes live on and good frames are answered."""

from collections.abc import Callable
from itertools import chain

from live import Broker, Pipeline

from fuzz.corpus import kept, nasty
from fuzz.judge import judge
from fuzz.targets import TARGETS
from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.wire.frames import encode_png

PICTURE = encode_png(read_sample(SHIPPED_BUNDLE).pictures[0]).data
REFUSED_A_TOPIC = 20
LARGEST = 2**20


def refused(name: str) -> list[bytes]:
    """Inputs that a decoder refuses: what it takes may be an order that a pipeline then obeys."""
    made = chain(kept(name).values(), (make() for make in nasty(name).values()))
    wrong = (data for data in made if len(data) <= LARGEST and judge(TARGETS[name], data).said != "taken")
    return [data for data, _ in zip(wrong, range(REFUSED_A_TOPIC), strict=False)]


def test_a_pipeline_outlives_hostile_bytes(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(mosquitto)
    processes = pipeline.bring_up({"device-1": "1,2", "device-2": "2,3,4"})
    count = 0
    for name, target in TARGETS.items():
        for data in refused(name) if target.topics else ():
            for topic in target.topics:
                pipeline.client.publish(f"{pipeline.topics.root}/{topic}", data)
                count += 1
    assert count > 300
    letters = [heard for heard in pipeline.client.heard if "/deadletter/" in heard.topic]
    assert letters
    pipeline.send("good", PICTURE)
    [answer] = pipeline.answers("good", 1)
    assert answer["status"] == "ok"
    pipeline.client.publish(pipeline.topics.policy_set, {"window": 67})
    # Hostile bytes lie on this topic, too, so nothing is decoded here.
    pipeline.client.wait_for(lambda h: h.topic == pipeline.topics.policy and b'"window":67' in h.payload)
    assert {name: process.process.poll() for name, process in processes.items()} == dict.fromkeys(processes)
    assert not [name for name, process in processes.items() if "internal error" in process.said()]
    assert not [name for name, process in processes.items() if "Traceback" in process.said()]
