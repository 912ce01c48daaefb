"""Bad bytes from anybody: a dead letter or an answer that says why, and the pipeline goes on."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from live import Broker, Pipeline
from PIL import Image

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.core.types import Task
from mqtt_mdi.wire.frames import JPEG, MAX_FRAME_BYTES, Frame, encode_png
from mqtt_mdi.wire.tasks import TaskInput, encode_tasks
from mqtt_mdi.wire.tensors import encode_tensor

MANIFEST = read_manifest(SHIPPED_BUNDLE)
PICTURE = read_sample(SHIPPED_BUNDLE).pictures[0]
SHAPE = (1, *MANIFEST.stage(2).input_shape)


@pytest.fixture
def pipeline(shared_pipeline: Pipeline) -> Pipeline:
    return shared_pipeline


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, "JPEG")
    return stream.getvalue()


def send_task(pipeline: Pipeline, device: str, stage: int, value: TaskInput, frame_id: str) -> None:
    """Play an upstream device whose source is called `tester`."""
    task = Task("cam", frame_id, "tester", stage)
    pipeline.client.publish(pipeline.topics.stage(stage, device), encode_tasks([(task, value)]))


def outcome(pipeline: Pipeline, frame_id: str) -> dict[str, Any]:
    """What the device tells the source `tester` of a frame."""
    topic = pipeline.topics.exits("tester")
    heard = pipeline.client.wait_for(
        lambda heard: heard.topic == topic and frame_id in [o["frame_id"] for o in heard.json], "outcome"
    )
    found: dict[str, Any] = next(o for o in heard.json if o["frame_id"] == frame_id)
    return found


def still_answers(pipeline: Pipeline, sensor: str) -> bool:
    """Whether a good frame is answered after all that."""
    count = len(pipeline.client.on(pipeline.topics.results(sensor)))
    pipeline.send(sensor, encode_png(PICTURE).data)
    answer = pipeline.answers(sensor, count + 1)[count]
    return bool(answer["status"] == "ok")


@pytest.mark.parametrize(
    ("data", "content_type", "reason"),
    [
        (b"hello", None, "frame begins with 68656c6c6f: expected a JPEG"),
        (b"", None, "empty frame"),
        (jpeg(), "video/mp4", "content type 'video/mp4' is not one of"),
        (
            b"\0" * (MAX_FRAME_BYTES + 1),
            None,
            f"frame of {MAX_FRAME_BYTES + 1} bytes: at most {MAX_FRAME_BYTES}",
        ),
    ],
    ids=["text", "empty", "video", "oversized"],
)
def test_what_is_no_frame_is_refused(
    pipeline: Pipeline, data: bytes, content_type: str | None, reason: str, request: pytest.FixtureRequest
) -> None:
    token = request.node.name.encode()
    reply_to = f"refusals/{pipeline.topics.pipeline}"
    pipeline.client.subscribe(reply_to)
    more = {"ContentType": content_type} if content_type else {}
    pipeline.send("cam", data, ResponseTopic=reply_to, CorrelationData=token, **more)
    letter = pipeline.dead_letter("source-1", reason)
    assert letter["topic"] == pipeline.topics.frames("cam")
    assert letter["size"] == len(data)
    assert letter["first_bytes"] == data[:32].hex()
    reply = pipeline.client.wait_for(lambda heard: heard.topic == reply_to and heard.correlation == token)
    assert reply.json["status"] == "failed"
    assert reason in reply.json["reason"]
    assert still_answers(pipeline, "after-refusal")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (jpeg()[:200], "picture cannot be decoded"),
        (encode_tensor(PICTURE)[:-1], "not readable CBOR"),
        (encode_tensor(PICTURE[None, None, None]), "shape"),
        (encode_tensor(np.zeros((1, 3, 3), np.float32)), "floating point frame of shape (1, 3, 3)"),
        (encode_tensor(np.full(MANIFEST.input.shape, np.nan, np.float32)), "frame holds NaN"),
        (encode_tensor(np.full((28, 28), 300, np.uint16)), "integer frames hold values from 0 to 255"),
        (b"\x93NUMPY\x01\x00", "not a readable .npy header"),
    ],
    ids=[
        "half-a-jpeg",
        "truncated-cbor",
        "five-dimensions",
        "small-floats",
        "nan",
        "large-integers",
        "no-npy",
    ],
)
def test_a_frame_that_cannot_be_decoded_is_answered_failed(
    pipeline: Pipeline, data: bytes, reason: str
) -> None:
    count = len(pipeline.client.on(pipeline.topics.results("torn")))
    pipeline.send("torn", data)
    answer = pipeline.answers("torn", count + 1)[count]
    assert answer["status"] == "failed"
    assert reason in answer["reason"]
    assert pipeline.dead_letter(answer["device"], reason)["topic"] == pipeline.topics.stage(
        1, answer["device"]
    )
    assert still_answers(pipeline, "after-torn")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            np.zeros((1, 16, 7, 7), np.float32),
            "got float32 of shape (1, 16, 7, 7), expected float32 of shape",
        ),
        (np.zeros(SHAPE, np.float64), "got float64 of shape"),
        (np.zeros(SHAPE, np.int8), "got int8 of shape"),
        (np.full(SHAPE, np.nan, np.float32), "got NaN or infinite values"),
        (np.full(SHAPE, np.inf, np.float32), "got NaN or infinite values"),
    ],
    ids=["shape", "float64", "int8", "nan", "infinite"],
)
def test_an_activation_that_does_not_fit_fails_its_frame(
    pipeline: Pipeline, value: TaskInput, reason: str, request: pytest.FixtureRequest
) -> None:
    frame_id = request.node.callspec.id.replace("[", ".")
    send_task(pipeline, "device-2", 2, value, frame_id)
    told = outcome(pipeline, frame_id)
    assert reason in told["reason"]
    assert "label" not in told
    assert pipeline.dead_letter("device-2", reason)
    assert still_answers(pipeline, "after-activation")


def test_a_big_endian_sender_is_understood(pipeline: Pipeline) -> None:
    for frame_id, kind in (("little", "<f4"), ("big", ">f4")):
        send_task(pipeline, "device-2", 2, np.full(SHAPE, 0.25, kind), frame_id)
    little, big = outcome(pipeline, "little"), outcome(pipeline, "big")
    assert "reason" not in big
    assert (big["label"], big["score"]) == (little["label"], little["score"])


def batch_without(name: str) -> bytes:
    fields = {"sensor": "cam", "frame_id": "1", "source": "tester", "stage": 2, "attempt": 1}
    value = cbor2.CBORTag(40, [list(SHAPE), cbor2.CBORTag(85, bytes(4 * int(np.prod(SHAPE))))])
    return cbor2.dumps({"tasks": [{k: v for k, v in fields.items() if k != name}], "inputs": value})


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (batch_without("nothing")[:-100], "not readable CBOR"),
        (b"", "not readable CBOR"),
        (b"{}", "not readable CBOR"),
        (cbor2.dumps({}), "expected a map with 'tasks'"),
        (batch_without("frame_id"), "frame_id"),
        (cbor2.dumps({"tasks": []}), "expected a map with 'tasks', a list of 1 to 256"),
        (encode_tasks([(Task("cam", "1", "tester", stage=9), np.zeros(SHAPE, np.float32))]), "stage 9"),
        (encode_tasks([(Task("cam", "1", "tester", stage=2), Frame(JPEG, jpeg()))]), "stage 1"),
    ],
    ids=["truncated", "empty", "json", "empty-map", "no-frame-id", "no-tasks", "unknown-stage", "picture"],
)
def test_bytes_that_are_no_batch_are_dead_letters(pipeline: Pipeline, payload: bytes, reason: str) -> None:
    topic = pipeline.topics.stage(2, "device-2")
    pipeline.client.publish(topic, payload)
    letter = pipeline.dead_letter("device-2", reason)
    assert (letter["topic"], letter["reporter"]) == (topic, "device-2")
    assert still_answers(pipeline, "after-batch")


def test_tasks_of_stages_nobody_has_or_this_device_does_not_hold(pipeline: Pipeline) -> None:
    # device-1 holds 1 and 2: it does not even hear of these.
    for stage in (4, 9):
        send_task(pipeline, "device-1", stage, np.zeros(SHAPE, np.float32), f"stray-{stage}")
    assert still_answers(pipeline, "after-stray")


def test_a_task_for_a_stage_given_up_goes_to_who_holds_it(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.bring_up({"device-1": "1,2,3,4", "device-2": "1,2,3,4"})
    place = {"placement": {"device-1": [1]}}
    pipeline.client.publish(pipeline.topics.policy_set, place)
    # Whether they come before the device obeys or after, each is answered, by whoever may.
    for number in range(50):
        pipeline.send("cam", encode_png(PICTURE).data, CorrelationData=str(number).encode())
    answers = pipeline.answers("cam", 50)
    assert {answer["status"] for answer in answers} == {"ok"}
    assert len({answer["frame_id"] for answer in answers}) == 50


@pytest.mark.parametrize("topic", ["exits/source-1", "devices/device-1/state", "truth/cam", "results/cam"])
def test_garbage_where_json_is_expected(pipeline: Pipeline, topic: str) -> None:
    topic = f"{pipeline.topics.root}/{topic}"
    pipeline.client.publish(topic, b"\xff\x00garbage")
    letter = pipeline.client.wait_for(
        lambda heard: "/deadletter/" in heard.topic and heard.json["topic"] == topic
    ).json
    assert letter["first_bytes"] == b"\xff\x00garbage".hex()
    assert still_answers(pipeline, "after-garbage")


def test_a_device_speaks_in_its_own_name_alone(pipeline: Pipeline) -> None:
    state = {"device": "device-1", "boot": "zzz", "online": False}
    pipeline.client.publish(pipeline.topics.device("evil"), state)
    pipeline.dead_letter("coordinator", "state of device-1 on the topic of evil")
    assert still_answers(pipeline, "after-evil")


def test_dead_letters_are_stored_and_bad_ones_are_no_loop(pipeline: Pipeline) -> None:
    pipeline.client.publish(pipeline.topics.deadletter("anybody"), b"no letter")
    assert still_answers(pipeline, "after-letter")
    assert pipeline.client.on(pipeline.topics.deadletter("coordinator")) == [
        heard
        for heard in pipeline.client.on(pipeline.topics.deadletter("coordinator"))
        if "/deadletter/" not in heard.json["topic"]
    ]


def test_a_graph_with_a_wrong_hash_is_not_run(
    broker: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(broker)
    topics, client = pipeline.topics, pipeline.client
    good = (SHIPPED_BUNDLE / "stage-1.onnx").read_bytes()
    client.publish(topics.manifest, MANIFEST.model_dump_json(), retain=True)
    client.publish(topics.model_stage(1), good[:-1] + b"?", retain=True)
    device = pipeline.device("device-1", "1")
    letter = pipeline.dead_letter("device-1", "wrong hash: the graph received has")
    assert letter["topic"] == topics.model_stage(1)
    assert MANIFEST.stage(1).sha256 in letter["reason"]
    pipeline.ready("device-1")
    client.publish(topics.model_stage(1), good, retain=True)
    pipeline.ready("device-1", 1)
    assert device.process.poll() is None


def test_retained_garbage_is_replaced_by_the_coordinator(
    broker: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(broker)
    topics, client = pipeline.topics, pipeline.client
    for topic in (topics.policy, topics.manifest, topics.model_stage(2), topics.coordinator):
        client.publish(topic, b"\xfegarbage", retain=True)
    client.publish(topics.device("ghost"), b"\xfegarbage", retain=True)
    pipeline.device("device-1", "1,2")
    pipeline.dead_letter("device-1", "policy: value: Invalid JSON")
    pipeline.dead_letter("device-1", "the manifest received is not a manifest of format 1")
    pipeline.start("coordinator", "--db", str(pipeline.database))
    pipeline.ready("device-1", 1, 2)
    policy = client.wait_for(lambda heard: heard.topic == topics.policy and heard.payload[:1] == b"{")
    assert policy.json["thresholds"] == list(MANIFEST.thresholds)
    if broker.kind == "mosquitto":
        pipeline.dead_letter("coordinator", "policy: value: Invalid JSON")


def test_a_retained_policy_of_another_network_is_replaced(
    broker: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(broker)
    stranger = {"version": 41, "thresholds": [0.5]}
    pipeline.client.publish(pipeline.topics.policy, stranger, retain=True)
    pipeline.start("coordinator", "--db", str(pipeline.database))
    policy = pipeline.client.wait_for_last(pipeline.topics.policy, lambda told: told["version"] > 41)
    assert policy["thresholds"] == list(MANIFEST.thresholds)


def test_a_local_bundle_with_a_wrong_hash_ends_the_device(tmp_path: Path, mosquitto: Broker) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(SHIPPED_BUNDLE, bundle)
    with (bundle / "stage-2.onnx").open("ab") as file:
        file.write(b"?")
    pipeline = Pipeline(mosquitto, "wrong-hash", tmp_path)
    with pipeline:
        for role in ("device", "source", "coordinator"):
            arguments = ("--bundle", str(bundle))
            process = pipeline.start(role, *arguments, *(() if role == "coordinator" else ("--stages", "2")))
            assert process.ended() == 4
            assert f"error: wrong hash: file {bundle / 'stage-2.onnx'} has" in process.said()
            assert "Traceback" not in process.said()


def test_a_stage_the_model_does_not_have_ends_the_device(pipeline: Pipeline) -> None:
    process = pipeline.device("device-9", "9")
    assert process.ended() == 2
    assert "error: device-9: no stages [9]; the model has [1, 2, 3, 4]" in process.said()
    state = pipeline.topics.device("device-9")
    assert pipeline.client.wait_for_last(state, lambda told: not told["online"])


def test_a_damaged_manifest_ends_the_coordinator(tmp_path: Path, mosquitto: Broker) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(SHIPPED_BUNDLE, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["stages"][0]["sha256"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with Pipeline(mosquitto, "damaged-manifest", tmp_path) as pipeline:
        process = pipeline.start("coordinator", "--bundle", str(bundle))
        assert process.ended() == 4
        assert "stages.0.sha256: Field required" in process.said()
