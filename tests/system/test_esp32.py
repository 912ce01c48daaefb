"""The example for an ESP32 under MicroPython itself, with its own MQTT client, against a real pipeline."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from live import Broker, Pipeline

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
MISSING = [name for name in ("micropython_unix", "umqtt") if find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed, there is no wheel for this machine: {MISSING}")
def test_it_hears_what_its_pictures_show(mosquitto: Broker, names: Iterator[str], tmp_path: Path) -> None:
    board = tmp_path / "board"
    board.mkdir()
    shutil.copy(EXAMPLES / "esp32_sensor.py", board)
    umqtt = find_spec("umqtt")
    assert umqtt is not None
    shutil.copytree(next(iter(umqtt.submodule_search_locations or ())), board / "umqtt")
    with Pipeline(mosquitto, next(names), tmp_path) as pipeline:
        settings = {
            "BROKER": mosquitto.url.host,
            "PORT": mosquitto.url.port,
            "PIPELINE": pipeline.topics.pipeline,
            "FRAMES": 3,
            "PAUSE_MS": 0,
        }
        lines = (f"{name} = {value!r}\n" for name, value in settings.items())
        (board / "config.py").write_text((EXAMPLES / "config.py").read_text() + "".join(lines))
        pipeline.bring_up({"device-1": "1,2,3,4"})
        ran = subprocess.run(
            [sys.executable, "-m", "micropython_unix", "esp32_sensor.py"],
            cwd=board,
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
        )
        answers = pipeline.answers("esp32-1", 3)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = [line.partition(" exit ")[0].rpartition(" ") for line in ran.stdout.splitlines()]
    assert [name for name, _, _ in said] == [answer["class_name"] for answer in answers]
    assert [float(score) for _, _, score in said] == pytest.approx([answer["score"] for answer in answers])
