"""`mqtt-mdi watch`: every answer, in order, as it comes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import click
from live import Broker, Client, Process, environment, mqtt_mdi, running, until

from mqtt_mdi.cli.watch import line
from mqtt_mdi.core.types import Result
from mqtt_mdi.runtime.broker import free_ports, running_broker
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.wire.messages import RESULT
from mqtt_mdi.wire.topics import Topics


def answer(frame_id: str, sensor: str = "cam1") -> Result:
    return Result(sensor, frame_id, "ok", 1, "Trouser", 0.9547, 2, "device-3", 11.7, 1, 1, 4)


def publish_until(client: Client, topics: Topics, watching: Process, word: str) -> None:
    """Publish an answer again and again, until the watcher, which says nothing of it, has subscribed."""

    def heard() -> bool:
        client.publish(topics.results("cam1"), RESULT.encode(answer(word)))
        return word in watching.said()

    until(heard, watching.said)


def test_thousands_at_once_are_all_there_and_in_order(mosquitto: Broker, tmp_path: Path) -> None:
    count, topics = 5000, Topics("watched")
    where = ("--broker", mosquitto.address, "--pipeline", "watched")
    with Client(mosquitto) as client, running(tmp_path, "watch", *where, "--json") as watching:
        publish_until(client, topics, watching, "first")
        for number in range(count):
            sensor = f"cam{number % 3}"
            sent = client._client.publish(
                topics.results(sensor), RESULT.encode(answer(str(number), sensor)), qos=1
            )
        sent.wait_for_publish(20)
        watching.wait_to_say(f'"frame_id":"{count - 1}"')
        assert watching.stop(signal.SIGINT) == 0
    said = [part for part in watching.said().splitlines() if part.startswith("{")]
    heard = [RESULT.decode(part.encode()) for part in said if '"first"' not in part]
    assert heard == [answer(str(number), f"cam{number % 3}") for number in range(count)]
    assert f"{len(said)} answered, 0 failed" in watching.said()
    assert "left at exit 2: 100%, latency p50 11.7 ms, p95 11.7 ms" in watching.said()


def test_what_people_see(mosquitto: Broker, tmp_path: Path) -> None:
    topics = Topics("seen")
    where = ("--broker", mosquitto.address, "--pipeline", "seen", "--sensor", "cam1", "--sensor", "cam2")
    with Client(mosquitto, f"{topics.root}/#") as client, running(tmp_path, "watch", *where) as watching:
        publish_until(client, topics, watching, "shot-1")
        client.publish(topics.results("cam3"), RESULT.encode(answer("of-another", "cam3")))
        client.publish(topics.results("cam1"), b'{"label": "no result"}')
        lost = Result("cam2", "shot-2", "failed", reason="no answer\x1b[2J in 5 attempts", policy_version=4)
        client.publish(topics.results("cam2"), RESULT.encode(lost))
        said = watching.wait_to_say("shot-2")
        assert watching.stop(signal.SIGINT) == 0
        assert not client.on(topics.deadletter("watch"))
    assert "Trouser         0.955  exit 2  device-3          11.7 ms  v4" in said
    assert "failed: no answer?[2J in 5 attempts  v4" in said
    assert "\x1b" not in said
    assert "of-another" not in said
    assert "1 failed" in watching.said()
    assert "1 not understood" in watching.said()


def test_a_failed_frame_is_red_in_a_terminal() -> None:
    lost = line(Result("cam1", "shot-1", "failed", reason="lost"))
    assert lost == click.style(click.unstyle(lost), "red")
    assert click.unstyle(line(answer("shot-1"))) == line(answer("shot-1"))


def test_it_ends_after_so_many(mosquitto: Broker, tmp_path: Path) -> None:
    topics = Topics("counted")
    where = ("--broker", mosquitto.address, "--pipeline", "counted")
    with (
        Client(mosquitto) as client,
        running(tmp_path, "watch", *where, "--json", "--count", "3") as watching,
    ):

        def ended() -> bool:
            client.publish(topics.results("cam1"), RESULT.encode(answer("again")))
            return watching.process.poll() is not None

        until(ended, watching.said)
    *answers, summary = watching.said().splitlines()
    assert [json.loads(part)["frame_id"] for part in answers] == ["again"] * 3
    assert summary.startswith("3 answered, 0 failed")
    assert watching.process.returncode == 0


def test_a_reader_that_leaves_brings_no_traceback(mosquitto: Broker) -> None:
    topics = Topics("left")
    command = (sys.executable, "-m", "mqtt_mdi", "watch", "--broker", mosquitto.address, "--pipeline", "left")
    with (
        Client(mosquitto) as client,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        ) as watching,
    ):
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.close()

        def ended() -> bool:
            client.publish(topics.results("cam1"), RESULT.encode(answer("again")))
            return watching.poll() is not None

        until(ended)
        assert "Traceback" not in watching.stderr.read()


def test_a_broker_that_comes_late_and_goes_away(tmp_path: Path) -> None:
    port, topics = free_ports("127.0.0.1", 1), Topics("late")
    broker = Broker("mosquitto", BrokerURL("127.0.0.1", port))
    with running(tmp_path, "watch", "--broker", broker.address, "--pipeline", "late") as watching:
        watching.wait_to_say("trying again")
        for word in ("first-life", "second-life"):
            with running_broker("mosquitto", port), Client(broker) as client:
                publish_until(client, topics, watching, word)
        watching.wait_to_say("lost")
        assert watching.stop(signal.SIGINT) == 0
    assert "Traceback" not in watching.said()


def test_a_sensor_that_cannot_be(tmp_path: Path) -> None:
    done = mqtt_mdi("watch", "--sensor", "a/b", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: --sensor 'a/b' may hold" in done.stderr
