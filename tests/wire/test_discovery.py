"""What Home Assistant is told: by its documentation's fields, of whatever a pipeline may hold."""

import json
from itertools import combinations

import pytest
from homes import VALIDATOR, Home

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Result
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.wire.home_assistant import Discovery, Seen, limits, updates
from mqtt_mdi.wire.messages import (
    COORDINATOR_STATE,
    DEVICE_STATE,
    METRICS,
    POLICY,
    RESULT,
    CoordinatorState,
    Metrics,
)

SEEN = Seen(
    (("device-1", "device"), ("source-1", "source")), ("cam1",), ((0, 1), (0, 1)), ("mdi-exit", "planner")
)
DISCOVERY = Discovery("demo")
TOPICS = DISCOVERY.topics


def home(seen: Seen, *last: tuple[str, bytes]) -> Home:
    return Home(DISCOVERY.messages(seen), dict(last))


def result(**values: object) -> tuple[str, bytes]:
    given = {"sensor": "cam1", "frame_id": "f", "status": "ok"} | values
    return TOPICS.results("cam1"), RESULT.encode(Result(**given))  # type: ignore[arg-type]


def test_it_is_what_the_documentation_names() -> None:
    messages = DISCOVERY.messages(SEEN)
    assert list(messages) == [
        f"homeassistant/device/mdi-demo/{name}/config"
        for name in ("pipeline", "device-device-1", "device-source-1", "sensor-cam1")
    ]
    shown = home(SEEN)
    assert {device.get("via_device") for device in shown.devices.values()} == {None, "mdi/demo"}
    assert [device["name"] for device in shown.devices.values()] == [
        "mqtt-mdi demo",
        "demo device-1",
        "demo source-1",
        "demo cam1",
    ]
    assert {"mdi/demo/threshold_1", "mdi/demo/threshold_2", "mdi/demo/strategy"} < shown.entities.keys()


def test_the_schema_takes_nothing_else() -> None:
    message = json.loads(DISCOVERY.messages(SEEN)[DISCOVERY.pipeline])
    for spoilt in (
        message | {"extra": 1},
        message | {"origin": {}},
        message | {"components": {"a": message["components"]["accuracy"] | {"valve_template": "{{ 1 }}"}}},
        message | {"components": {"a": message["components"]["latency"] | {"unit_of_measurement": "frames"}}},
    ):
        assert not VALIDATOR.is_valid(spoilt)


def test_names_that_look_alike_stay_apart() -> None:
    odd = ("a", "-", "_", "device-a", "sensor-a", "a-config", "A", "x" * 64)
    seen = Seen(tuple((name, "device") for name in odd), odd)
    pipelines = ("a", "a-device-a", "device", "-")
    messages = [Discovery(pipeline).messages(seen) for pipeline in pipelines]
    for one, other in combinations(messages, 2):
        assert not one.keys() & other.keys()
        assert not Home(one, {}).entities.keys() & Home(other, {}).entities.keys()
    assert [DISCOVERY.sensor(DISCOVERY.config("sensor", name)) for name in odd] == list(odd)
    assert DISCOVERY.sensor(DISCOVERY.config("device", "sensor-a")) is None
    assert DISCOVERY.sensor(DISCOVERY.pipeline) is None


def test_nothing_seen_is_nothing_announced() -> None:
    assert DISCOVERY.messages(Seen()) == {}


def test_a_pipeline_without_a_policy_has_nothing_to_set() -> None:
    assert not any("command_topic" in entity for entity in home(Seen(sensors=("cam1",))).entities.values())


@pytest.mark.parametrize("name", ["Trouser", 'T-shirt "top"', "{{ 1 }}", "löv\nblad", "x" * 1000, "7"])
def test_answers_with_odd_names(name: str) -> None:
    shown = home(
        SEEN, result(label=1, class_name=name, score=0.5), (TOPICS.device("source-1"), online("source-1"))
    )
    assert shown.state("mdi/demo/sensor/cam1/answer") == name[:255]
    assert shown.attributes("mdi/demo/sensor/cam1/answer")["class_name"] == name


def test_answers_that_say_less() -> None:
    source = (TOPICS.device("source-1"), online("source-1"))
    answer, score = "mdi/demo/sensor/cam1/answer", "mdi/demo/sensor/cam1/score"
    assert home(SEEN, result(label=3), source).state(answer) == "3"
    failed = home(SEEN, result(status="failed", reason="lost"), source)
    assert (failed.state(answer), failed.state(score)) == ("failed", "unknown")


def test_sensors_are_there_while_any_source_is() -> None:
    seen = Seen((("a", "source"), ("b", "source"), ("c", "device")), ("cam1",))
    for first, second, state in ((1, 0, "3"), (0, 1, "3"), (0, 0, "unavailable")):
        states = [
            (TOPICS.device(name), online(name, bool(is_on))) for name, is_on in (("a", first), ("b", second))
        ]
        assert home(seen, result(label=3), *states).state("mdi/demo/sensor/cam1/answer") == state
    assert home(Seen(sensors=("cam1",)), result(label=3)).state("mdi/demo/sensor/cam1/answer") == "3"


def online(name: str, is_online: bool = True) -> bytes:  # noqa: FBT001, FBT002 -- reads well in a table
    return DEVICE_STATE.encode(DeviceState(name, "boot-1", online=is_online))


def test_what_is_not_known_yet() -> None:
    coordinator = COORDINATOR_STATE.encode(CoordinatorState(online=True, boot="boot-1"))
    metrics = METRICS.encode(Metrics(0.0, 0, 0, 0, 0, (), 0, 1))
    shown = home(
        SEEN,
        (TOPICS.coordinator, coordinator),
        (TOPICS.metrics, metrics),
        (TOPICS.device("device-1"), online("device-1")),
    )
    for name in ("accuracy", "latency", "latency_p95", "device/device-1/service_time"):
        assert shown.state(f"mdi/demo/{name}") == "unknown"
    assert shown.number("mdi/demo/throughput") == 0
    assert shown.number("mdi/demo/device/device-1/done") == 0


@pytest.mark.parametrize("state", [b"", b"no json"])
def test_a_state_that_was_taken_away(state: bytes) -> None:
    shown = home(SEEN, (TOPICS.device("device-1"), state), (TOPICS.coordinator, state))
    assert shown.state("mdi/demo/device/device-1/connection") == "OFF"
    assert shown.state("mdi/demo/device/device-1/done") == "unavailable"
    assert shown.state("mdi/demo/coordinator") == "OFF"
    assert shown.state("mdi/demo/accuracy") == "unavailable"


def test_a_number_changes_its_own_threshold_alone() -> None:
    policy = (TOPICS.policy, POLICY.encode(Policy(thresholds=(0.9, 0.8))))
    shown = home(SEEN, policy)
    topic, patch = shown.command("mdi/demo/threshold_2", 0.7)
    assert (topic, json.loads(patch)) == (TOPICS.policy_set, {"thresholds": [0.9, 0.7]})
    assert json.loads(shown.command("mdi/demo/threshold_1", 1)[1]) == {"thresholds": [1, 0.8]}
    assert json.loads(shown.command("mdi/demo/strategy", 'pl"an')[1]) == {"strategy": 'pl"an'}


def test_thresholds_of_other_scores_can_be_set() -> None:
    assert limits((0.5, -0.25, 3.5, 1.0)) == ((0, 1), (-1, 1), (0, 4), (0, 1))


def test_entities_that_go_are_named_once_more() -> None:
    fewer = Seen(SEEN.devices, SEEN.sensors, SEEN.limits[:1], SEEN.strategies)
    before, after = (DISCOVERY.messages(seen)[DISCOVERY.pipeline] for seen in (SEEN, fewer))
    farewell, last = updates(before, after)
    assert last == after
    assert json.loads(farewell)["components"]["threshold_2"] == {"platform": "number"}
    VALIDATOR.validate(json.loads(farewell))
    assert updates(after, before) == [before]
    assert updates(farewell, after) == [farewell, after]


@pytest.mark.parametrize(
    "before", [b"", b"\xff", b"[]", b"{}", b'{"components": 1}', b'{"components": {"a": 1}}', b"[" * 100_000]
)
def test_what_strangers_left_there(before: bytes) -> None:
    after = DISCOVERY.messages(SEEN)[DISCOVERY.pipeline]
    assert updates(before, after) == [after]


@pytest.mark.parametrize("prefix", ["", "/a", "a/", "a//b", "a/#", "+", "a\0", "x" * 201])
def test_a_prefix_that_is_no_topic(prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"discovery prefix .* expected one like homeassistant"):
        Discovery("demo", prefix)


def test_a_prefix_of_ones_own() -> None:
    assert Discovery("demo", "home/ha").pipeline == "home/ha/device/mdi-demo/pipeline/config"
