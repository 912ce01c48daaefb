"""Frames in every format, from clients of both versions of MQTT, and what they are answered."""

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from live import PATIENCE_S, Broker, Client, Heard, Pipeline
from numpy.typing import NDArray
from paho.mqtt import client as paho
from PIL import Image

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.bundle.trace import read_trace, replay
from mqtt_mdi.core.exits import leaves
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.wire.frames import CBOR, JPEG, NPY, PNG, Frame, decode_frame, encode_png
from mqtt_mdi.wire.tensors import encode_tensor

MANIFEST = read_manifest(SHIPPED_BUNDLE)
SAMPLE = read_sample(SHIPPED_BUNDLE)
TRACE = read_trace(SHIPPED_BUNDLE)
MARGIN = 1e-3
"""Scores this close to a threshold may fall on either side of it on another machine."""


@pytest.fixture
def pipeline(shared_pipeline: Pipeline) -> Pipeline:
    return shared_pipeline


def clear_pictures(count: int) -> list[int]:
    """Places in the sample of pictures whose exit no rounding can move, of every exit in turn."""
    scores = TRACE.score[SAMPLE.indices, :-1]
    clear = (np.abs(scores - np.asarray(MANIFEST.thresholds)) > MARGIN).all(axis=1)
    exits = np.where(clear, replay(TRACE, MANIFEST.thresholds)[SAMPLE.indices], 0)
    groups = [np.flatnonzero(exits == stage) for stage in range(1, MANIFEST.stage_count + 1)]
    return [int(group[n]) for n in range(count) for group in groups if n < len(group)][:count]


def expected(place: int) -> tuple[int, int]:
    """The exit and the label that the trace promises for a picture of the sample."""
    row = SAMPLE.indices[place]
    exit_stage = int(replay(TRACE, MANIFEST.thresholds)[row])
    return exit_stage, int(TRACE.label[row, exit_stage - 1])


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def npy(picture: NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, picture)
    return stream.getvalue()


def run_here(frame: Frame) -> tuple[int, int]:
    """Exit and label of a frame by this process, stage after stage."""
    value = decode_frame(frame, MANIFEST.input)
    for spec in MANIFEST.stages:
        output = OnnxStage(read_stage(SHIPPED_BUNDLE, spec), spec).run(value)
        if leaves(float(output.scores[0]), spec.index, MANIFEST.thresholds) or output.activation is None:
            return spec.index, int(output.labels[0])
        value = output.activation
    raise AssertionError("the last exit answers")


def test_every_exit_is_the_one_the_trace_promises(pipeline: Pipeline) -> None:
    places = clear_pictures(200)
    for place in places:
        frame = encode_png(SAMPLE.pictures[place])
        pipeline.send("parity", frame.data, CorrelationData=f"picture-{place}".encode())
    answers = pipeline.answers("parity", len(places))
    assert {
        answer["frame_id"]: (answer["exit_stage"], answer["label"], answer["status"]) for answer in answers
    } == {f"picture-{place}": (*expected(place), "ok") for place in places}
    assert {answer["exit_stage"] for answer in answers} == set(range(1, MANIFEST.stage_count + 1))
    assert all(answer["class_name"] == MANIFEST.classes[answer["label"]] for answer in answers)


@pytest.mark.parametrize("named", [True, False], ids=["content-type", "first-bytes"])
@pytest.mark.parametrize("content_type", [JPEG, PNG, NPY, CBOR])
def test_one_answer_on_both_topics(pipeline: Pipeline, content_type: str, named: bool) -> None:  # noqa: FBT001
    place = clear_pictures(1)[0]
    picture = SAMPLE.pictures[place]
    data = {
        JPEG: jpeg(picture),
        PNG: encode_png(picture).data,
        NPY: npy(picture),
        CBOR: encode_tensor(picture),
    }[content_type]
    frame_id = f"{content_type.replace('/', '-')}-{named}".encode()
    topics = pipeline.topics
    reply_to = f"answers/{topics.pipeline}"
    pipeline.client.subscribe(reply_to)
    more = {"ContentType": content_type} if named else {}
    pipeline.send("cam", data, ResponseTopic=reply_to, CorrelationData=frame_id, **more)

    def answers_it(heard: Heard, topic: str) -> bool:
        return heard.topic == topic and heard.json["frame_id"] == frame_id.decode()

    public = pipeline.client.wait_for(lambda heard: answers_it(heard, topics.results("cam")))
    private = pipeline.client.wait_for(lambda heard: answers_it(heard, reply_to))
    assert private.json == public.json
    assert private.correlation == frame_id
    answer = private.json
    promised = run_here(Frame(JPEG, data)) if content_type == JPEG else expected(place)
    assert (answer["status"], answer["exit_stage"], answer["label"]) == ("ok", *promised)
    assert answer["latency_ms"] > 0


def test_floating_point_frames_are_taken_as_they_are(pipeline: Pipeline) -> None:
    place = clear_pictures(1)[0]
    ready_made = decode_frame(encode_png(SAMPLE.pictures[place]), MANIFEST.input)[0]
    pipeline.send("floats", npy(ready_made))
    pipeline.send("floats", encode_tensor(ready_made))
    for answer in pipeline.answers("floats", 2):
        assert (answer["exit_stage"], answer["label"]) == expected(place)


def test_correlation_data_that_is_no_identifier_comes_back_as_it_was(pipeline: Pipeline) -> None:
    token = b"\x00\xffnot text"
    reply_to = f"binary/{pipeline.topics.pipeline}"
    pipeline.client.subscribe(reply_to)
    frame = encode_png(SAMPLE.pictures[0])
    pipeline.send("binary", frame.data, ResponseTopic=reply_to, CorrelationData=token)
    answer = pipeline.client.wait_for(lambda heard: heard.topic == reply_to)
    assert answer.correlation == token
    assert answer.json["frame_id"] == f"hex:{token.hex()}"


def test_ids_that_are_long_and_begin_alike_are_two_frames(pipeline: Pipeline) -> None:
    site = b'{"site": "a hall with a long name", "camera": "over the gate", "picture": '
    for last in (b"1}", b"2}"):
        pipeline.send("alike", encode_png(SAMPLE.pictures[0]).data, CorrelationData=site + last)
    first, second = (answer["frame_id"] for answer in pipeline.answers("alike", 2))
    assert first != second


def test_an_id_that_reads_like_our_hexadecimal_is_another_frame(pipeline: Pipeline) -> None:
    for given in (b"\x01\x02", b"hex:0102", bytes(60)):
        pipeline.send("read", encode_png(SAMPLE.pictures[0]).data, CorrelationData=given)
    names = {answer["frame_id"] for answer in pipeline.answers("read", 3)}
    assert len(names) == 3
    assert {"hex:0102", f"hex:{b'hex:0102'.hex()}"} < names


def test_the_same_frame_sent_twice_is_answered_once(pipeline: Pipeline) -> None:
    frame = encode_png(SAMPLE.pictures[0])
    for sensor_frame in (b"once", b"once", b"after"):
        pipeline.send("twice", frame.data, CorrelationData=sensor_frame)
    pipeline.client.wait_for(
        lambda heard: heard.topic == pipeline.topics.results("twice") and heard.json["frame_id"] == "after"
    )
    assert sorted(answer["frame_id"] for answer in pipeline.answers("twice", 2)) == ["after", "once"]


def test_a_client_of_mqtt_311_needs_nothing_but_a_topic(pipeline: Pipeline) -> None:
    results = pipeline.topics.results("old")
    with Client(pipeline.broker, results, version=paho.MQTTv311) as client:
        places = clear_pictures(4)
        for number, place in enumerate(places, 1):
            client.publish(pipeline.topics.frames("old"), encode_png(SAMPLE.pictures[place]).data)
            client.wait_on(results, number)
        answers = [heard.json for heard in client.on(results)]
    assert [(answer["exit_stage"], answer["label"]) for answer in answers] == [*map(expected, places)]


@pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="no mosquitto_pub: apt-get install mosquitto-clients"
)
def test_mosquitto_pub_as_in_the_readme(pipeline: Pipeline, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(jpeg(SAMPLE.pictures[clear_pictures(1)[0]]))
    broker, topics = pipeline.broker, pipeline.topics
    reply_to = f"shell/{topics.pipeline}"
    pipeline.client.subscribe(reply_to)

    def publish(port: int, *more: str) -> None:
        where = ["-h", broker.url.host, "-p", str(port)]
        message = ["-t", topics.frames("cam1"), "-f", str(picture)]
        subprocess.run(["mosquitto_pub", *where, *message, *more], check=True, timeout=PATIENCE_S)

    publish(broker.port_v311, "-V", "mqttv311")
    publish(broker.url.port, "-V", "5", "-q", "1", "-D", "publish", "response-topic", reply_to)
    first, second = pipeline.answers("cam1", 2)
    assert first["frame_id"] != second["frame_id"]
    promised = run_here(Frame(JPEG, picture.read_bytes()))
    assert (first["exit_stage"], first["label"]) == (second["exit_stage"], second["label"]) == promised
    answer = pipeline.client.wait_for(lambda heard: heard.topic == reply_to)
    assert answer.json["frame_id"] in (first["frame_id"], second["frame_id"])


def test_what_went_on_stands_in_the_retained_metrics(
    broker: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(broker)
    pipeline.bring_up({"device-1": "1,2,3,4"})
    for number in range(20):
        pipeline.send(
            "metered", encode_png(SAMPLE.pictures[number]).data, CorrelationData=f"{number}".encode()
        )
        truth = {"frame_id": str(number), "label": int(SAMPLE.labels[number])}
        pipeline.client.publish(pipeline.topics.truth("metered"), truth)
    answers = pipeline.answers("metered", 20)
    metrics = pipeline.client.wait_for_last(pipeline.topics.metrics, lambda told: told["graded"] >= 20)
    right = sum(answer["label"] == SAMPLE.labels[int(answer["frame_id"])] for answer in answers)
    assert metrics["graded"] == metrics["answered"] == 20
    assert metrics["accuracy"] == right / 20
    assert metrics["devices_online"] == 2
