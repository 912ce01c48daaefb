"""A pipeline in Home Assistant: what is announced shows the truth, steers it, and follows who is there."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from homes import Home
from live import Broker, Client, Pipeline, mqtt_mdi, running, until
from secured import secured_broker

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Result
from mqtt_mdi.wire.frames import encode_png
from mqtt_mdi.wire.home_assistant import BIRTH, Discovery
from mqtt_mdi.wire.messages import DEVICE_STATE, POLICY, RESULT

SENSOR = "Cam_1-x"
FRAMES = 12


class Listener:
    """Hears a pipeline and what is announced of it, and looks at it as Home Assistant would."""

    def __init__(self, client: Client, discovery: Discovery) -> None:
        self.client = client
        self.discovery = discovery
        self.topics = discovery.topics
        self._home = Home({}, {})
        self._shown: dict[str, bytes] = {}
        client.subscribe(discovery.every, f"{self.topics.root}/#")

    @property
    def configs(self) -> dict[str, bytes]:
        """What is retained on discovery topics, by topic."""
        heard = {message.topic: message.payload for message in list(self.client.heard)}
        return {
            topic: data for topic, data in heard.items() if topic.startswith(self.discovery.root) and data
        }

    @property
    def names(self) -> set[str]:
        """Of what is announced."""
        return {topic.split("/")[-2] for topic in self.configs}

    @property
    def home(self) -> Home:
        """As it stands now."""
        last = {message.topic: message.payload for message in list(self.client.heard)}
        if (configs := self.configs) != self._shown:
            self._home, self._shown = Home(configs, last), configs
        self._home.last = last
        return self._home

    def announced(self, *names: str) -> None:
        """Wait until just these are announced."""
        until(lambda: self.names == set(names), lambda: self.names)

    def times(self, name: str) -> int:
        """How often a name was described."""
        topic = f"{self.discovery.root}/{name}/config"
        return sum(bool(message.payload) for message in self.client.on(topic))

    def device(self, name: str, **values: object) -> None:
        """Retain the state of a device."""
        state = DeviceState(name, "boot-1", **values)  # type: ignore[arg-type]
        self.client.publish(self.topics.device(name), DEVICE_STATE.encode(state), retain=True)

    def policy(self, *thresholds: float) -> None:
        """Retain a policy."""
        policy = POLICY.encode(Policy(version=1, thresholds=thresholds, strategy="our-own"))
        self.client.publish(self.topics.policy, policy, retain=True)

    def answer(self, sensor: str) -> None:
        """Publish an answer."""
        self.client.publish(self.topics.results(sensor), RESULT.encode(Result(sensor, "f", "ok", 1)))


@pytest.fixture
def listener(mosquitto: Broker, names: Iterator[str]) -> Iterator[Listener]:
    with Client(mosquitto) as client:
        yield Listener(client, Discovery(next(names)))


def where(broker: Broker, listener: Listener) -> tuple[str, ...]:
    return ("home-assistant", "--broker", broker.address, "--pipeline", listener.topics.pipeline)


def test_it_shows_the_truth_and_changes_the_policy(
    mosquitto: Broker, names: Iterator[str], tmp_path: Path
) -> None:
    with Pipeline(mosquitto, next(names), tmp_path) as pipeline:
        listener = Listener(pipeline.client, Discovery(pipeline.topics.pipeline))
        processes = pipeline.bring_up({"device-1": "1,2,3,4"})
        pipeline.start("home-assistant")
        listener.announced("pipeline", "device-device-1", "device-source-1")
        send_sample(pipeline)
        listener.announced("pipeline", "device-device-1", "device-source-1", f"sensor-{SENSOR}")
        shows_the_truth(listener.home, pipeline)
        changes_the_policy(listener)

        root = f"mdi/{pipeline.topics.pipeline}"
        processes["device-1"].kill()
        until(lambda: listener.home.state(f"{root}/device/device-1/connection") == "OFF", within_s=60)
        assert listener.home.state(f"{root}/device/device-1/input_queue") == "unavailable"
        assert processes["coordinator"].stop() == 0
        until(lambda: listener.home.state(f"{root}/coordinator") == "OFF")
        assert listener.home.state(f"{root}/accuracy") == "unavailable"
        assert listener.home.state(f"{root}/sensor/{SENSOR}/answer") != "unavailable"


def send_sample(pipeline: Pipeline) -> None:
    """Frames with their truth, until all is counted."""
    sample, topics = read_sample(SHIPPED_BUNDLE), pipeline.topics
    for number in range(FRAMES):
        pipeline.send(
            SENSOR, encode_png(sample.pictures[number]).data, CorrelationData=f"shot-{number}".encode()
        )
        truth = {"frame_id": f"shot-{number}", "label": int(sample.labels[number])}
        pipeline.client.publish(topics.truth(SENSOR), truth)
    pipeline.answers(SENSOR, FRAMES)
    pipeline.client.wait_for_last(topics.metrics, lambda said: said["graded"] == FRAMES)
    pipeline.client.wait_for_last(
        topics.device("source-1"), lambda said: said["counters"]["answered"] == FRAMES
    )


def shows_the_truth(home: Home, pipeline: Pipeline) -> None:
    root = f"mdi/{pipeline.topics.pipeline}"
    with closing(sqlite3.connect(pipeline.database)) as database:
        [(accuracy,)] = database.execute("SELECT 100.0 * avg(correct) FROM results")
    expected = {
        "accuracy": accuracy,
        "answered": FRAMES,
        "failed": 0,
        "devices_online": 2,
        "policy_version": 1,
        "device/source-1/done": FRAMES,
    }
    found = {name: home.number(f"{root}/{name}") for name in expected}
    assert found == pytest.approx(expected)
    assert home.state(f"{root}/coordinator") == home.state(f"{root}/device/device-1/connection") == "ON"
    assert home.state(f"{root}/strategy") == "mdi-exit"
    assert "planner" in home.entities[f"{root}/strategy"]["options"]
    for name in ("throughput", "device/device-1/input_queue", "device/device-1/output_queue"):
        assert home.number(f"{root}/{name}") >= 0
    last = pipeline.answers(SENSOR, FRAMES)[-1]
    assert home.state(f"{root}/sensor/{SENSOR}/answer") == last["class_name"]
    assert home.attributes(f"{root}/sensor/{SENSOR}/answer") == last
    for name, field in (("latency", "latency_ms"), ("score", "score")):
        assert home.number(f"{root}/sensor/{SENSOR}/{name}") == pytest.approx(last[field])


def changes_the_policy(listener: Listener) -> None:
    root = f"mdi/{listener.topics.pipeline}"

    def thresholds() -> list[float]:
        return [listener.home.number(f"{root}/threshold_{number}") for number in (1, 2, 3)]

    def set_to(name: str, value: object) -> None:
        topic, patch = listener.home.command(f"{root}/{name}", value)
        listener.client.publish(topic, patch)
        until(lambda: listener.home.state(f"{root}/{name}") == str(value), lambda: listener.home.last)

    first, _, third = thresholds()
    set_to("threshold_2", 0.123)
    set_to("strategy", "local")
    assert thresholds() == [first, 0.123, third]
    assert listener.home.number(f"{root}/policy_version") == 3


def test_it_follows_who_comes_and_goes(mosquitto: Broker, listener: Listener, tmp_path: Path) -> None:
    listener.device("device-1")
    listener.device("device-2", role="source")
    listener.policy(0.5, 0.5)
    with running(tmp_path, *where(mosquitto, listener)) as announcer:
        listener.announced("pipeline", "device-device-1", "device-device-2")
        assert listener.home.entities[f"mdi/{listener.topics.pipeline}/strategy"]["options"][-1] == "our-own"
        listener.answer("cam1")
        listener.announced("pipeline", "device-device-1", "device-device-2", "sensor-cam1")
        listener.client.publish(listener.topics.device("device-1"), b"", retain=True)
        listener.announced("pipeline", "device-device-2", "sensor-cam1")
        listener.policy(0.5)
        fewer = f"mdi/{listener.topics.pipeline}/threshold_2"
        until(lambda: fewer not in listener.home.entities, listener.home.entities.keys)

        def described() -> list[dict[str, Any]]:
            return [json.loads(heard.payload) for heard in listener.client.on(listener.discovery.pipeline)]

        until(lambda: "threshold_2" not in described()[-1]["components"], described)
        farewell, last = described()[-2:]
        assert farewell["components"].pop("threshold_2") == {"platform": "number"}
        assert farewell == last

        listener.client.publish(listener.discovery.config("sensor", "cam1"), b"", retain=True)
        listener.answer("cam2")
        listener.announced("pipeline", "device-device-2", "sensor-cam2")
        listener.answer("cam1")
        listener.announced("pipeline", "device-device-2", "sensor-cam1", "sensor-cam2")

        before = listener.times("sensor-cam1")
        listener.client.publish(BIRTH, b"online")
        until(lambda: listener.times("sensor-cam1") > before)
        assert listener.names == {"pipeline", "device-device-2", "sensor-cam1", "sensor-cam2"}
        listener.client.publish(listener.topics.device("device-2"), b"no JSON", retain=True)
        listener.client.publish(listener.topics.policy, b"[]", retain=True)
        announcer.wait_to_say("bad message on")
        assert announcer.stop() == 0
    assert len(listener.names) == 4


def test_it_takes_up_what_it_left(mosquitto: Broker, listener: Listener, tmp_path: Path) -> None:
    listener.device("device-1")
    listener.device("device-2")
    with running(tmp_path, *where(mosquitto, listener)) as announcer:
        listener.announced("pipeline", "device-device-1", "device-device-2")
        listener.answer("cam1")
        listener.announced("pipeline", "device-device-1", "device-device-2", "sensor-cam1")
        assert announcer.stop() == 0
    described = listener.times("sensor-cam1")
    listener.client.publish(listener.topics.device("device-1"), b"", retain=True)
    listener.client.publish(f"{listener.discovery.root}/strange/config", b"garbage", retain=True)
    with running(tmp_path, *where(mosquitto, listener)):
        listener.announced("pipeline", "device-device-2", "sensor-cam1")
    assert listener.times("sensor-cam1") == described

    removed = mqtt_mdi(*where(mosquitto, listener), "--remove")
    assert (removed.returncode, removed.stdout) == (0, "3 removed\n")
    listener.announced()
    assert mqtt_mdi(*where(mosquitto, listener), "--remove").stdout == "0 removed\n"


def test_there_is_a_limit(mosquitto: Broker, listener: Listener, tmp_path: Path) -> None:
    for number in range(5):
        listener.device(f"device-{number}")
    with running(tmp_path, *where(mosquitto, listener), "--limit", "3") as announcer:
        until(lambda: listener.names)
        for number in range(5):
            listener.answer(f"cam{number}")
        sensors = {f"sensor-cam{number}" for number in range(3)}
        until(lambda: sensors < listener.names, lambda: listener.names)
        announcer.wait_to_say("--limit is 3: sensor cam3 is not announced, nor what comes after it")
        assert len(listener.names - sensors - {"pipeline"}) == 3


def test_rights_of_its_own(mosquitto: Broker, tmp_path: Path) -> None:  # noqa: ARG001 -- skips without it
    users = "demo:\n  announcer: [teller]\n  viewer: [screen]\n  device: [device-1]\n"
    with secured_broker(tmp_path, users) as secured:
        refused = mqtt_mdi("home-assistant", env=secured.environment("screen"), cwd=tmp_path)
        assert refused.returncode == 2
        assert (
            "publish on homeassistant/device/mdi-demo/announcer/config; check the user's role"
            in refused.stderr
        )
        with (
            running(tmp_path, "device", "--bundle", str(SHIPPED_BUNDLE), env=secured.environment("device-1")),
            running(tmp_path, "home-assistant", env=secured.environment("teller")) as announcer,
        ):
            announcer.wait_to_say("2 described, 0 removed")
            assert announcer.stop() == 0
        removed = mqtt_mdi("home-assistant", "--remove", env=secured.environment("teller"), cwd=tmp_path)
        assert (removed.returncode, removed.stdout) == (0, "2 removed\n")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ("--remove", "--timeout", "0.5", "--broker", "mqtt://127.0.0.1:9"),
            "no answer from mqtt://127.0.0.1:9",
        ),
        (
            ("--discovery-prefix", "a/#"),
            "discovery prefix 'a/#' is no topic: expected one like homeassistant",
        ),
        (("--limit", "0"), "0 is not in the range 1<=x<=10000"),
    ],
)
def test_what_it_cannot_do(tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    ended = mqtt_mdi("home-assistant", *more, cwd=tmp_path)
    assert ended.returncode == 2
    assert words in ended.stderr
