"""A policy changed over MQTT while frames flow: thresholds, placement, and patches that are refused."""

import json
import secrets
from collections import Counter
from collections.abc import Callable

import pytest
from live import Broker, Client, Pipeline, mqtt_mdi

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.wire.frames import encode_png

MANIFEST = read_manifest(SHIPPED_BUNDLE)
FRAMES = [encode_png(picture).data for picture in read_sample(SHIPPED_BUNDLE).pictures[:40]]
DEVICES = ("device-1", "device-2", "device-3")


def send_all(pipeline: Pipeline, sensor: str) -> None:
    for number, data in enumerate(FRAMES):
        pipeline.send(sensor, data, CorrelationData=str(number).encode())


def exits(pipeline: Pipeline, sensor: str) -> Counter[int]:
    """Send the frames; how many left at each exit."""
    send_all(pipeline, sensor)
    return Counter(answer["exit_stage"] for answer in pipeline.answers(sensor, len(FRAMES)))


def change(pipeline: Pipeline, patch: object) -> int:
    """Have a patch accepted, and wait until every device runs it; the new version."""
    topics, token = pipeline.topics, secrets.token_bytes(8)
    pipeline.client.publish(
        topics.policy_set, json.dumps(patch), ResponseTopic=topics.policy_result, CorrelationData=token
    )
    reply = pipeline.client.wait_for(
        lambda heard: heard.correlation == token and "accepted" in heard.json
    ).json
    assert reply["accepted"], reply
    version: int = reply["version"]
    for name in (*DEVICES, "source-1"):
        pipeline.client.wait_for_last(
            pipeline.topics.device(name), lambda told: told["policy_version"] >= version
        )
    return version


def test_thresholds_move_the_exits(pipeline: Pipeline) -> None:
    change(pipeline, {"thresholds": [2, 2, 2]})
    assert exits(pipeline, "never") == {4: len(FRAMES)}
    version = change(pipeline, {"thresholds": [0, 0, 0]})
    assert exits(pipeline, "always") == {1: len(FRAMES)}
    assert {answer["policy_version"] for answer in pipeline.answers("always", len(FRAMES))} == {version}
    change(pipeline, {"thresholds": MANIFEST.thresholds})
    assert len(exits(pipeline, "shipped")) > 1


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ('{"thresholds": [0.5]}', "thresholds: 1 values, this network has 3 early exits"),
        ('{"thresholds": "high"}', "thresholds: Input should be a valid array"),
        ('{"thresholds": null}', "thresholds: Field required"),
        ('{"threshold": [1, 1, 1]}', "threshold: Extra inputs are not permitted"),
        ('{"lease_s": -1}', "lease_s: Input should be greater than 0"),
        ('{"placement": {"device-1": [7]}}', "placement.device-1: stages [7], this network has 4"),
        ('{"version": 99}', "version: given by the coordinator, leave it out"),
        ("[1, 2]", "policy patch: value: Input should be an object"),
        ("{", "policy patch: value: Invalid JSON"),
        ('{"lease_s": NaN}', "lease_s: Input should be a finite number"),
        ("\xff", "policy patch"),
    ],
)
def test_a_bad_patch_changes_nothing_and_is_told_why(pipeline: Pipeline, patch: str, reason: str) -> None:
    before = pipeline.client.last(pipeline.topics.policy)
    assert before is not None
    reply_to = f"replies/{pipeline.topics.pipeline}"
    token = patch.encode()
    pipeline.client.subscribe(reply_to)
    pipeline.client.publish(
        pipeline.topics.policy_set,
        patch.encode("latin-1"),
        ResponseTopic=reply_to,
        CorrelationData=token,
    )
    reply = pipeline.client.wait_for(
        lambda heard: heard.topic == reply_to and heard.correlation == token
    ).json
    assert reply["accepted"] is False
    assert reason in reply["reason"]
    assert reply["version"] == before.json["version"]
    with Client(pipeline.broker, pipeline.topics.policy) as newcomer:
        retained = newcomer.wait_for(lambda heard: heard.retain)
    assert retained.payload == before.payload


def test_a_retained_patch_is_refused(mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.client.publish(pipeline.topics.policy_set, {"window": 1}, retain=True)
    pipeline.coordinator()
    pipeline.dead_letter("coordinator", "a retained patch would be applied at every start")
    policy = pipeline.client.last(pipeline.topics.policy)
    assert policy is not None
    assert policy.json["window"] == 64


def test_the_command_line_shows_and_sets(pipeline: Pipeline) -> None:
    where = ("--broker", pipeline.broker.address, "--pipeline", pipeline.topics.pipeline)
    retained = pipeline.client.on(pipeline.topics.policy)[-1].json
    shown = mqtt_mdi("policy", "show", *where)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == retained

    done = mqtt_mdi("policy", "set", *where, '{"lease_s": 3.5}')
    assert (done.returncode, done.stdout) == (0, f"accepted as version {retained['version'] + 1}\n")
    assert json.loads(mqtt_mdi("policy", "show", *where).stdout)["lease_s"] == 3.5

    default = mqtt_mdi("policy", "set", *where, '{"lease_s": null}')
    assert default.returncode == 0
    assert json.loads(mqtt_mdi("policy", "show", *where).stdout)["lease_s"] == 2.0

    refused = mqtt_mdi("policy", "set", *where, '{"lease_s": 0}')
    assert refused.returncode == 2
    assert refused.stderr == (
        f"error: rejected, version {retained['version'] + 2} stays in force: "
        "lease_s: Input should be greater than 0\n"
    )


def test_a_device_gains_and_loses_stages_while_frames_flow(pipeline: Pipeline) -> None:
    send_all(pipeline, "moving")
    change(pipeline, {"placement": {"device-1": [1], "device-2": [2, 3], "device-3": [4]}})
    send_all(pipeline, "moved")
    change(pipeline, {"placement": {"device-1": [3, 4], "device-2": [1, 2, 3, 4], "device-3": []}})
    pipeline.ready("device-1", 3, 4)
    pipeline.ready("device-2", 1, 2, 3, 4)
    pipeline.ready("device-3")
    send_all(pipeline, "settled")
    for sensor in ("moving", "moved", "settled"):
        answers = pipeline.answers(sensor, len(FRAMES))
        assert {answer["status"] for answer in answers} == {"ok"}
        assert sorted(int(answer["frame_id"]) for answer in answers) == [*range(len(FRAMES))]
    assert {answer["device"] for answer in pipeline.answers("settled", len(FRAMES))} <= {
        "device-1",
        "device-2",
    }
    change(pipeline, {"placement": None})
    pipeline.ready("device-1", 1, 2)


def test_a_policy_outlives_its_coordinator(
    new_pipeline: Callable[[Broker], Pipeline], broker: Broker
) -> None:
    pipeline = new_pipeline(broker)
    first = pipeline.coordinator()
    where = ("--broker", broker.address, "--pipeline", pipeline.topics.pipeline)
    assert mqtt_mdi("policy", "set", *where, '{"window": 17}').returncode == 0
    assert first.stop() == 0
    pipeline.client.wait_for_last(pipeline.topics.coordinator, lambda said: not said["online"])
    second = pipeline.coordinator()
    assert json.loads(mqtt_mdi("policy", "show", *where).stdout)["window"] == 17
    second.kill()
    if broker.kind == "embedded":
        return  # it sends retained messages to new sessions alone, so another database begins anew
    # Another database, the same broker: the retained policy is the one that counts.
    pipeline.database = pipeline.folder / "another.db"
    pipeline.coordinator()
    assert json.loads(mqtt_mdi("policy", "show", *where).stdout)["window"] == 17
