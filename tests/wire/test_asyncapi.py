import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from mqtt_mdi.wire.asyncapi import CHANNELS, EXAMPLES, JSON_MESSAGES, PARAMETERS, document
from mqtt_mdi.wire.schemas import json_schemas
from mqtt_mdi.wire.topics import _SINGLE, Topic, Topics

DOCUMENT = document()
SCHEMAS = Path(__file__).parents[2] / "schemas"
FILLED = {"pipeline": "demo", "sensor": "x", "device": "x", "source": "x", "stage": "7", "reporter": "x"}


def addresses() -> dict[str, str]:
    return {name: channel["address"].format(**FILLED) for name, channel in DOCUMENT["channels"].items()}


def test_the_addresses_are_those_of_the_topics_module() -> None:
    topics = Topics("demo")
    assert addresses() == {
        "frames": topics.frames("x"),
        "stageDevice": topics.stage(7, "x"),
        "stageAny": topics.stage_any(7),
        "exits": topics.exits("x"),
        "results": topics.results("x"),
        "truth": topics.truth("x"),
        "deviceState": topics.device("x"),
        "policy": topics.policy,
        "policySet": topics.policy_set,
        "policyResult": topics.policy_result,
        "modelManifest": topics.manifest,
        "modelStage": topics.model_stage(7),
        "metrics": topics.metrics,
        "coordinatorState": topics.coordinator,
        "deadletter": topics.deadletter("x"),
    }


def test_every_kind_of_topic_has_its_channel() -> None:
    kinds = {Topics("demo").parse(address).kind for address in addresses().values()}
    named = {"frames", "stage", "exits", "results", "truth", "devices", "model/stage", "deadletter"}
    assert kinds == named | _SINGLE
    assert Topics("demo").parse(addresses()["stageAny"]) == Topic("stage", "any", 7)


def test_the_shared_subscription_is_described() -> None:
    said = DOCUMENT["channels"]["stageAny"]["description"]
    assert Topics("demo").stage_shared(7) in said.format(**FILLED)


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            assert list(value) == ["$ref"]
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    found = list(references(DOCUMENT))
    assert found
    for reference in found:
        file, _, pointer = reference.partition("#")
        target = json.loads((SCHEMAS / file).read_text()) if file else DOCUMENT
        for step in filter(None, pointer.split("/")):
            target = target[step]
        assert target


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_has_the_parameters_of_its_address_and_both_operations(name: str) -> None:
    channel = DOCUMENT["channels"][name]
    assert set(channel["parameters"]) == set(re.findall(r"{(\w+)}", channel["address"])) <= set(PARAMETERS)
    operations = {
        operation["action"]: operation
        for operation in DOCUMENT["operations"].values()
        if operation["channel"]["$ref"] == f"#/channels/{name}"
    }
    assert set(operations) == {"send", "receive"}
    for operation in operations.values():
        assert operation["tags"]
    assert operations["send"]["bindings"]["mqtt"]["retain"] is CHANNELS[name].retained


def test_qualities_and_retention_are_those_of_the_protocol() -> None:
    retained = {name for name, channel in CHANNELS.items() if channel.retained}
    assert retained == {
        "deviceState", "policy", "modelManifest", "modelStage", "metrics", "coordinatorState"
    }  # fmt: skip
    assert {name for name, channel in CHANNELS.items() if channel.qos == 0} == {"deviceState", "metrics"}
    assert {name for name, channel in CHANNELS.items() if channel.qos is None} == {
        "frames", "stageDevice", "stageAny"
    }  # fmt: skip


def test_a_patch_is_answered() -> None:
    for name in ("sendPolicySet", "receivePolicySet"):
        assert DOCUMENT["operations"][name]["reply"] == {"channel": {"$ref": "#/channels/policyResult"}}


def test_every_json_message_has_a_schema_and_an_example_that_fits() -> None:
    found = json_schemas()
    assert set(JSON_MESSAGES) == set(found) == set(EXAMPLES)
    for name in JSON_MESSAGES:
        message = DOCUMENT["components"]["messages"][name]
        assert message["payload"] == {"$ref": f"./{name}.schema.json"}
        for example in message["examples"]:
            Draft202012Validator(found[name]).validate(example["payload"])


def test_every_message_travels_somewhere() -> None:
    used = {message for channel in CHANNELS.values() for message in channel.messages}
    assert used == set(DOCUMENT["components"]["messages"])


def test_the_packages_that_check_it_are_pinned_but_not_where_they_come_from() -> None:
    lock = json.loads((SCHEMAS / "package-lock.json").read_text())["packages"]
    asked = lock.pop("")["dependencies"]
    assert asked == json.loads((SCHEMAS / "package.json").read_text())["dependencies"]
    for name, version in asked.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    for package in lock.values():
        assert package["integrity"]
        assert "resolved" not in package
