"""The command line as users meet it: help, settings, errors and exit codes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from live import PATIENCE_S, Broker, Pipeline, environment, mqtt_mdi, running, until

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.cli.main import COMMANDS, cli, main
from mqtt_mdi.runtime.broker import free_ports
from mqtt_mdi.wire.frames import encode_png

NOBODY = "mqtt://127.0.0.1:9"


@pytest.mark.parametrize(
    "command", [*([name] for name in COMMANDS), [], ["policy", "show"], ["policy", "set"]]
)
def test_help(command: list[str]) -> None:
    shown = CliRunner().invoke(cli, [*command, "--help"], prog_name="mqtt-mdi")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.startswith(f"Usage: {' '.join(['mqtt-mdi', *command])}")
    assert shown.stderr == ""
    if not command:
        assert all(f"  {name} " in shown.stdout for name in COMMANDS)


def test_the_version() -> None:
    assert mqtt_mdi("--version").stdout == f"mqtt-mdi, version {__version__}\n"


def imported(*arguments: str) -> set[str]:
    """The top-level packages that a command loads."""
    script = (
        "import sys\n"
        "from mqtt_mdi.cli.main import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=150,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("command", ["device", "source", "coordinator", "sensor"])
def test_help_loads_nothing_heavy(command: str) -> None:
    assert not imported(command, "--help") & {"torch", "onnxruntime", "sqlalchemy", "rich", "yaml", "PIL"}


def test_a_running_device_has_not_loaded_torch_or_the_database(mosquitto: Broker, tmp_path: Path) -> None:
    with Pipeline(mosquitto, "light", tmp_path) as pipeline:
        device = pipeline.device("device-1", "1", "--bundle", str(SHIPPED_BUNDLE))
        pipeline.ready("device-1", 1)
        mapped = Path(f"/proc/{device.process.pid}/maps")
        if not mapped.exists():
            pytest.skip("needs /proc")
        libraries = mapped.read_text()
    assert "onnxruntime" in libraries
    assert "torch" not in libraries
    assert "sqlalchemy" not in libraries


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["device", "--broker", "http://gateway"], 2, "error: broker 'http://gateway': expected mqtt://"),
        (["device", "--broker", "mqtt://gateway:many"], 2, "expected mqtt://user:password@host:1883"),
        (["device", "--broker", "mqtt://[::1"], 2, "expected mqtt://user:password@host:1883"),
        (
            ["device", "--id", "a/b"],
            2,
            "error: --id 'a/b' may hold 1 to 64 letters, digits, '_' and '-' alone",
        ),
        (["device", "--id", "any"], 2, "error: --id any: the topic of that name belongs to all devices"),
        (["device", "--pipeline", "a b"], 2, "error: pipeline 'a b' may hold"),
        (["device", "--stages", "one"], 2, "'one' is not 'all', 'none' or numbers from 1 like '1,2'"),
        (["device", "--stages", "0"], 2, "'0' is not 'all', 'none' or numbers from 1"),
        (["device", "--bundle", "nowhere"], 4, "error: no bundle at nowhere"),
        (["source", "--sensors", "cam/1"], 2, "error: --sensors 'cam/1' may hold"),
        (["coordinator", "--bundle", "nowhere"], 4, "error: no bundle at nowhere"),
        (["coordinator", "--db", "no/such/folder/x.db"], 5, "unable to open database file"),
        (["coordinator", "--db", "text.db"], 5, "file is not a database"),
        (["policy", "show", "--broker", NOBODY, "--timeout", "0.3"], 2, "is a coordinator running?"),
        (["policy", "set", "--broker", NOBODY, "--timeout", "0.3", "{}"], 2, "is a coordinator running?"),
        (["policy", "show", "--timeout", "nan"], 2, "nan is not a finite number"),
        (["policy", "set", "{thresholds"], 2, "error: PATCH is no JSON"),
        (["policy", "set", "[" * 50_000], 2, "error: PATCH is no JSON"),
        (["policy", "set", "1" * 5_000], 2, "error: PATCH is no JSON"),
        (["certs", "--out", "text.db/x"], 2, "error: cannot write to --out text.db/x: Not a directory"),
        (["users", "users.yaml", "--out", "text.db/x", "--broker", "mqtt://b"], 2, "cannot write to --out"),
        (["demo", "--broker", "ftp://x", "--db", "x.db"], 2, "error: broker 'ftp://x': expected mqtt://"),
        (["demo", "--db", "text.db"], 2, "error: --db text.db exists"),
        (["demo", "--frames", "0"], 2, "0 is not in the range"),
        (["no-such-command"], 2, "No such command 'no-such-command'"),
        (["device", "--no-such-option"], 2, "No such option"),
    ],
    ids=lambda value: " ".join(value)[:80] if isinstance(value, list) else None,
)
def test_errors_are_told_in_a_line(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, and long enough not to be taken for an empty one")
    (tmp_path / "users.yaml").write_text("demo: {device: [pi-1]}")
    done = mqtt_mdi(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_settings_that_are_no_text_are_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MDI_BROKER=\xff")
    done = mqtt_mdi("policy", "strategies", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read .env: ")
    assert "in UTF-8" in done.stderr


def test_memory_that_runs_out_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "main", lambda **_: np.empty(2**55, np.uint8))
    with pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().err.startswith("error: out of memory: Unable to allocate 32.0 PiB")


@pytest.mark.parametrize(("arguments", "env"), [(["--debug"], {}), ([], {"MDI_DEBUG": "1"})])
def test_debug_shows_the_traceback(arguments: list[str], env: dict[str, str], tmp_path: Path) -> None:
    done = mqtt_mdi(*arguments, "device", "--bundle", "nowhere", cwd=tmp_path, env=env)
    assert done.returncode not in (0, 4)
    assert "Traceback" in done.stderr
    assert "BundleError: no bundle at nowhere" in done.stderr


def test_settings_come_from_the_environment_and_from_dotenv(broker: Broker, tmp_path: Path) -> None:
    with Pipeline(broker, "settings", tmp_path) as pipeline:
        (tmp_path / ".env").write_text("MDI_PIPELINE=settings\nMDI_ID=from-dotenv\nMDI_STAGES=2\n")
        env = {"MDI_BROKER": broker.address, "MDI_ID": "from-environment", "MDI_BUNDLE": str(SHIPPED_BUNDLE)}
        with running(tmp_path, "device", env=env):
            pipeline.ready("from-environment", 2)
        with running(tmp_path, "device", "--stages", "3", env=env):
            pipeline.ready("from-environment", 3)
        del env["MDI_ID"]
        with running(tmp_path, "device", env=env):
            pipeline.ready("from-dotenv", 2)


@pytest.mark.parametrize("command", ["broker", "demo"])
def test_a_port_in_use(command: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = mqtt_mdi(command, "--port", str(port), cwd=tmp_path)
    assert done.returncode == 2
    assert f"error: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "stop what uses it or choose another --port" in done.stderr


def test_a_broker_in_the_foreground(broker: Broker, tmp_path: Path) -> None:
    port = free_ports("127.0.0.1", 2)
    with running(tmp_path, "broker", "--kind", broker.kind, "--port", str(port)) as process:
        process.wait_to_say(f"{broker.kind} listens on mqtt://127.0.0.1:{port}; stop it with Ctrl-C")
        if broker.kind == "embedded":
            process.wait_to_say(f"clients of MQTT 3.1.1 connect to port {port + 1}")
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S):
            assert process.stop() == 0


@pytest.fixture(scope="module")
def small(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A source that computes all there is, for sensors."""
    with Pipeline(broker, f"small-{os.getpid()}", tmp_path_factory.mktemp("small")) as pipeline:
        pipeline.source("source-1", "all", "--bundle", str(SHIPPED_BUNDLE))
        pipeline.coordinator()
        pipeline.ready("source-1", 1, 2, 3, 4)
        yield pipeline


def test_a_sensor_counts_its_answers(small: Pipeline, tmp_path: Path) -> None:
    where = ("--broker", small.broker.address, "--pipeline", small.topics.pipeline)
    done = mqtt_mdi("sensor", *where, "--id", "cam1", "--frames", "50", "--window", "7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [heard.json for heard in small.client.on(small.topics.results("cam1"))]
    labels = read_sample(SHIPPED_BUNDLE).labels
    right = sum(answer["label"] == labels[int(answer["frame_id"].rsplit("-", 1)[1])] for answer in answers)
    assert done.stdout == (
        f"50 frames sent, 50 answered, {100 * right / 50:.2f}% right, 0 failed, 0 doubled, "
        "0 without an answer\n"
    )


def test_a_sensor_keeps_its_rate_and_stops_when_asked(small: Pipeline, tmp_path: Path) -> None:
    where = ("--broker", small.broker.address, "--pipeline", small.topics.pipeline)
    with running(tmp_path, "sensor", *where, "--id", "slow", "--frames", "0", "--rate", "20") as sensor:
        answers = small.answers("slow", 10)
        assert sensor.stop() == 0, sensor.said()
        assert "0 without an answer" in sensor.said()
    assert answers[0]["frame_id"] != answers[1]["frame_id"]


def test_a_sensor_does_not_wait_for_ever_for_what_it_sent(mosquitto: Broker, tmp_path: Path) -> None:
    with Pipeline(mosquitto, "frozen", tmp_path) as pipeline:
        source = pipeline.source("source-1", "all", "--bundle", str(SHIPPED_BUNDLE))
        pipeline.coordinator()
        pipeline.ready("source-1", 1, 2, 3, 4)
        source.process.send_signal(signal.SIGSTOP)
        where = ("--broker", mosquitto.address, "--pipeline", "frozen")
        with running(tmp_path, "sensor", *where, "--id", "cam", "--frames", "0", "--rate", "20") as sensor:
            pipeline.client.wait_on(pipeline.topics.frames("cam"), 2)
            sensor.process.send_signal(signal.SIGTERM)
            assert sensor.stop() == 1
            assert " 0 answered" in sensor.said()
        source.process.send_signal(signal.SIGCONT)


def test_a_source_admits_the_sensors_it_is_given(mosquitto: Broker, tmp_path: Path) -> None:
    frame = encode_png(read_sample(SHIPPED_BUNDLE).pictures[0]).data
    with Pipeline(mosquitto, "choosy", tmp_path) as pipeline:
        pipeline.source("source-1", "all", "--sensors", "cam1, cam2", "--bundle", str(SHIPPED_BUNDLE))
        pipeline.ready("source-1", 1, 2, 3, 4)
        for sensor in ("cam3", "cam1", "cam2"):
            pipeline.send(sensor, frame)
        pipeline.answers("cam1", 1)
        pipeline.answers("cam2", 1)
        assert not pipeline.client.on(pipeline.topics.results("cam3"))


def test_a_device_without_a_broker_is_stopped_all_the_same(tmp_path: Path) -> None:
    with running(tmp_path, "device", "--broker", NOBODY) as device:
        device.wait_to_say("trying again")
        assert device.stop() == 0


def test_what_is_published_is_the_shipped_model(small: Pipeline) -> None:
    topics = small.topics
    until(lambda: small.client.on(topics.model_stage(4)))
    manifest = (SHIPPED_BUNDLE / "manifest.json").read_bytes()
    assert small.client.on(topics.manifest)[-1].payload == manifest
    for spec in read_manifest(SHIPPED_BUNDLE).stages:
        assert (
            small.client.on(topics.model_stage(spec.index))[-1].payload
            == (SHIPPED_BUNDLE / spec.graph).read_bytes()
        )
