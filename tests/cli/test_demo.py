"""The demo: every part a process, figures that the database confirms."""

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from live import PATIENCE_S, Broker, Client, environment, mqtt_mdi, running, until
from sqlalchemy import create_engine, text

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.trace import read_trace, replay
from mqtt_mdi.cli.demo import spread
from mqtt_mdi.errors import StorageError
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.storage.store import read_summary
from mqtt_mdi.wire.frames import encode_png

KEYS = {
    "frames",
    "answered",
    "failed",
    "duplicates",
    "accuracy",
    "full_accuracy",
    "throughput",
    "latency_p50_ms",
    "latency_p95_ms",
    "exits",
    "mean_macs_share",
    "db",
}


@pytest.mark.parametrize("devices", range(1, 8))
def test_every_stage_is_held_twice_where_there_are_two_devices(devices: int) -> None:
    held = spread(4, devices)
    assert len(held) == devices
    for stage in range(1, 5):
        assert sum(stage in stages for stages in held) >= min(2, devices)


def test_the_demo_and_its_database_agree(broker: Broker, tmp_path: Path) -> None:
    frames = 200
    arguments = ("--frames", str(frames), "--broker", broker.kind, "--db", "demo.db", "--json")
    done = mqtt_mdi("demo", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures.keys() >= KEYS
    assert (figures["frames"], figures["answered"]) == (frames, frames)
    assert (figures["failed"], figures["duplicates"]) == (0, 0)
    assert sum(figures["exits"]) == frames
    assert figures["latency_p50_ms"] <= figures["latency_p95_ms"]

    by_hand = """
        SELECT avg(results.label = truths.label), count(*) / (max(received_at) - min(received_at))
        FROM results JOIN truths USING (pipeline, sensor, frame_id)
    """
    with closing(sqlite3.connect(tmp_path / "demo.db")) as connection:
        assert connection.execute(by_hand).fetchone() == (figures["accuracy"], figures["throughput"])
        counts = connection.execute("SELECT count(*), count(DISTINCT frame_id) FROM results").fetchone()
        assert counts == (frames, frames)
    engine = create_engine(f"sqlite:///{tmp_path / 'demo.db'}")
    with engine.connect() as reading:
        row = reading.execute(text("SELECT accuracy, throughput, latency_p50_ms FROM summary")).one()
    engine.dispose()
    assert row == (figures["accuracy"], figures["throughput"], figures["latency_p50_ms"])

    manifest, sample, trace = (
        read_manifest(SHIPPED_BUNDLE),
        read_sample(SHIPPED_BUNDLE),
        read_trace(SHIPPED_BUNDLE),
    )
    rows = sample.indices[:frames]
    promised = [list(replay(trace, manifest.thresholds)[rows]).count(k) for k in range(1, 5)]
    assert all(abs(found - other) <= 1 for found, other in zip(figures["exits"], promised, strict=True))
    assert figures["full_accuracy"] == (trace.label[rows, -1] == sample.labels[:frames]).mean()
    spent = sum(count * share for count, share in zip(figures["exits"], manifest.macs_shares, strict=True))
    assert figures["mean_macs_share"] == pytest.approx(spent / frames)


def test_the_demo_on_a_broker_that_runs_already(mosquitto: Broker, tmp_path: Path) -> None:
    arguments = ("--frames", "20", "--devices", "1", "--broker", mosquitto.address, "--pipeline", "visitor")
    done = mqtt_mdi("demo", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy of the full network" in done.stdout
    assert len([*(tmp_path / "runs").glob("demo-*.db")]) == 1


def _processes(words: str, parent: int | None = None) -> set[int]:
    """Processes with these words on their command line; of one parent, if it is given."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = parent is None or f"PPid:\t{parent}\n" in (folder / "status").read_text()
            if mine and words in (folder / "cmdline").read_text().replace("\0", " "):
                found.add(int(folder.name))
    return found


@pytest.mark.skipif(
    not Path("/proc/self/status").exists() or shutil.which("mosquitto") is None,
    reason="looks in /proc for processes, one of them mosquitto",
)
@pytest.mark.parametrize("serve", [False, True])
@pytest.mark.parametrize("words", ["mosquitto -c", "source"])
def test_told_to_stop_while_it_starts_it_leaves_nothing_behind(
    tmp_path: Path,
    serve: bool,  # noqa: FBT001 -- a case
    words: str,
) -> None:
    pipeline = f"stopped-{os.getpid()}-{serve}-{words[:6]}"
    mode = ("--serve",) if serve else ()
    with running(tmp_path, "demo", "--pipeline", pipeline, "--db", "stopped.db", *mode) as demo:
        until(lambda: _processes(words, demo.process.pid))
        brokers = _processes("mosquitto -c", demo.process.pid)
        assert demo.stop(signal.SIGTERM if serve else signal.SIGINT) in (0, 1, 130)
        assert "Traceback" not in demo.said()
    assert _processes(f"--pipeline {pipeline}") == set()
    assert not brokers & _processes("mosquitto -c")


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="no mosquitto")
def test_ctrl_c_in_the_terminal_loses_no_frame(tmp_path: Path) -> None:
    """A terminal sends it to all of its processes at once."""
    words = ("demo", "--frames", "100000", "--db", "ended.db", "--json", "--broker", "mosquitto")
    demo = subprocess.Popen(
        [sys.executable, "-m", "mqtt_mdi", *words],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )

    def begun() -> bool:
        with suppress(StorageError):
            return read_summary(tmp_path / "ended.db", "demo")["answered"] > 0
        return False

    until(begun)
    os.killpg(demo.pid, signal.SIGINT)
    said, _ = demo.communicate(timeout=PATIENCE_S)
    figures = json.loads(said.splitlines()[-1])
    assert 0 < figures["frames"] == figures["answered"]


@pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="no mosquitto_pub: apt-get install mosquitto-clients"
)
def test_serve_answers_the_one_liners_it_prints(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(encode_png(read_sample(SHIPPED_BUNDLE).pictures[0]).data)
    with running(tmp_path, "demo", "--serve", "--broker", broker.kind, "--db", "serve.db") as demo:
        lines = [line.strip() for line in demo.wait_to_say("policy/set").splitlines()]
        assert lines[0].startswith("pipeline demo is up on mqtt://127.0.0.1:")
        address = lines[0].split()[5].rstrip(",")
        listen, send, change = (line for line in lines if line.startswith("mosquitto_"))
        assert listen.endswith(" &")
        once = f"{listen.removesuffix('&')} -C 1 -W 60"
        with subprocess.Popen(shlex.split(once), stdout=subprocess.PIPE, text=True) as listener:

            def answered() -> bool:
                subprocess.run(shlex.split(send), check=True, cwd=tmp_path, timeout=PATIENCE_S)
                return listener.poll() is not None

            until(answered)  # the first may be sent before the listener has subscribed
            assert listener.stdout is not None
            answer = json.loads(listener.stdout.read())
        assert (answer["status"], answer["sensor"]) == ("ok", "cam1")
        with Client(Broker(broker.kind, BrokerURL.parse(address)), "mdi/v1/demo/policy") as client:
            subprocess.run(shlex.split(change), check=True, timeout=PATIENCE_S)
            client.wait_for_last("mdi/v1/demo/policy", lambda told: told["thresholds"] == [0.99, 0.99, 0.99])
        assert demo.stop(signal.SIGINT) == 0
        assert "Traceback" not in demo.said()
