"""A source with a spool that is killed, stopped, or finds its disk full: every frame has its one result."""

import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from live import Broker, Pipeline, Process, mqtt_mdi, until

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.wire.frames import encode_png

PICTURE = encode_png(read_sample(SHIPPED_BUNDLE).pictures[0]).data
SLOW = ("--emulate", "1e6")
"""A device that needs seconds for a frame."""

NewPipeline = Callable[[Broker], Pipeline]


def spooled(pipeline: Pipeline, *arguments: str) -> Process:
    return pipeline.source("source-1", "none", "--spool", str(pipeline.folder / "source.spool"), *arguments)


def send(pipeline: Pipeline, *names: str, **more: object) -> None:
    for name in names:
        pipeline.send("cam", PICTURE, CorrelationData=name.encode(), **more)


def wait_admitted(pipeline: Pipeline, count: int) -> None:
    states = pipeline.topics.device("source-1")
    pipeline.client.wait_for_last(states, lambda said: said["counters"].get("admitted") == count)


def owed(pipeline: Pipeline) -> int:
    """Frames in the spool without an answer; no source may have it open."""
    with closing(sqlite3.connect(pipeline.folder / "source.spool")) as connection:
        count: int = connection.execute("SELECT count(*) FROM frames WHERE data IS NOT NULL").fetchone()[0]
        return count


def assert_each_answered(pipeline: Pipeline, *names: str) -> None:
    answers = {answer["frame_id"]: answer for answer in pipeline.answers("cam", len(names))}
    assert answers.keys() == set(names)
    assert {answer["status"] for answer in answers.values()} == {"ok"}


def test_what_a_killed_source_owed_is_answered_by_its_next_start(
    mosquitto: Broker, new_pipeline: NewPipeline
) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    source = spooled(pipeline)
    pipeline.ready("source-1")
    send(pipeline, "a", "b")
    wait_admitted(pipeline, 2)
    source.kill()
    assert owed(pipeline) == 2
    send(pipeline, "c", "b")
    pipeline.device("device-1", "1,2,3,4")
    again = spooled(pipeline)
    assert_each_answered(pipeline, "a", "b", "c")
    assert "2 frames owed, 0 answers to send" in again.said()
    assert again.stop() == 0
    assert owed(pipeline) == 0


def test_a_source_told_to_stop_leaves_what_it_owes_to_its_next_start(
    mosquitto: Broker, new_pipeline: NewPipeline
) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    slow = pipeline.device("slow", "1,2,3,4", *SLOW)
    source = spooled(pipeline)
    pipeline.ready("slow", 1, 2, 3, 4)
    pipeline.ready("source-1")
    names = [str(number) for number in range(8)]
    send(pipeline, *names)
    wait_admitted(pipeline, 8)
    assert source.stop() == 0
    left = owed(pipeline)
    assert left > 0
    # its last answers may still be on their way to us
    pipeline.client.wait_on(pipeline.topics.results("cam"), 8 - left)
    assert len(pipeline.client.on(pipeline.topics.results("cam"))) == 8 - left
    slow.kill()
    pipeline.device("device-1", "1,2,3,4")
    spooled(pipeline)
    assert_each_answered(pipeline, *names)
    assert len(pipeline.client.on(pipeline.topics.results("cam"))) == 8


def test_a_sensor_that_did_not_hear_is_told_the_same_again(
    mosquitto: Broker, new_pipeline: NewPipeline
) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.bring_up({"device-1": "1,2,3,4"})["source-1"].stop()
    source = spooled(pipeline)
    pipeline.ready("source-1")
    send(pipeline, "a")
    first = pipeline.client.wait_on(pipeline.topics.results("cam"))[0]
    source.kill()
    spooled(pipeline)
    pipeline.client.subscribe("mine")
    send(pipeline, "a", ResponseTopic="mine")
    told = pipeline.client.wait_on("mine")[0]
    assert (told.payload, told.correlation) == (first.payload, b"a")
    assert {heard.payload for heard in pipeline.client.on(pipeline.topics.results("cam"))} == {first.payload}


def test_a_source_whose_disk_is_full_acknowledges_nothing_and_ends(
    mosquitto: Broker, new_pipeline: NewPipeline
) -> None:
    """The largest a file may grow is a limit that any user can set; to SQLite it is a disk that fails."""
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    pipeline.device("device-1", "1,2,3,4")
    source = spooled(pipeline)
    pipeline.ready("source-1")
    pipeline.ready("device-1", 1, 2, 3, 4)
    largest = max(file.stat().st_size for file in pipeline.folder.glob("source.spool*"))
    resource.prlimit(source.process.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    names = [str(number) for number in range(40)]
    send(pipeline, *names)
    assert source.ended() == 5
    assert "source.spool: " in source.said()
    assert "Traceback" not in source.said()
    pipeline.client.wait_for_last(pipeline.topics.device("source-1"), lambda said: not said["online"])
    spooled(pipeline)
    assert_each_answered(pipeline, *names)


def test_two_sources_cannot_have_one_spool(mosquitto: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    first = spooled(pipeline)
    pipeline.ready("source-1")
    where = ("--broker", mosquitto.address, "--pipeline", pipeline.topics.pipeline)
    spool = ("--spool", str(pipeline.folder / "source.spool"))
    second = mqtt_mdi("source", *where, "--id", "source-2", *spool)
    assert second.returncode == 5
    assert "another program keeps it locked" in second.stderr
    assert first.process.poll() is None


def test_sensors_that_are_no_longer_ours_are_left_to_others(
    mosquitto: Broker, new_pipeline: NewPipeline
) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    pipeline.device("device-1", "1,2,3,4")
    spooled(pipeline, "--sensors", "cam,other").kill()
    first = spooled(pipeline, "--sensors", "cam,other")
    pipeline.ready("source-1")
    first.kill()
    again = spooled(pipeline, "--sensors", "cam")
    until(lambda: "has model" in again.said(), again.said)
    pipeline.send("other", PICTURE)
    send(pipeline, "a")
    assert_each_answered(pipeline, "a")
    wait_admitted(pipeline, 1)
    assert not pipeline.client.on(pipeline.topics.results("other"))


def test_all_sensors_after_one_of_them_are_heard_once(mosquitto: Broker, new_pipeline: NewPipeline) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.coordinator()
    pipeline.device("device-1", "1,2,3,4")
    first = spooled(pipeline, "--sensors", "cam")
    pipeline.ready("source-1")
    first.kill()
    spooled(pipeline).wait_to_say("has model")
    for sensor in ("cam", "other", "cam", "end"):
        pipeline.send(sensor, PICTURE)
    pipeline.answers("end", 1)
    said = pipeline.client.wait_for_last(
        pipeline.topics.device("source-1"), lambda said: said["counters"].get("answered", 0) >= 4
    )
    assert said["counters"]["admitted"] == 4


def test_a_damaged_spool_is_named(tmp_path: Path) -> None:
    spool = tmp_path / "source.spool"
    spool.write_text("shopping: milk, bread\n" * 100)
    done = mqtt_mdi("source", "--spool", str(spool))
    assert done.returncode == 5
    assert "source.spool: file is not a database: the file is no SQLite database" in done.stderr
