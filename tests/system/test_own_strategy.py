"""A policy of one's own: one file, registered, simulated and run on the broker, with nothing else edited."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from live import Broker, Pipeline, mqtt_mdi, until

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.wire.frames import encode_png

FRAMES = 60
HOT_POTATO = '''
"""Never run two stages of a frame in a row: each goes to the next device by name that holds it."""

from mqtt_mdi.core.strategies.registry import register
from mqtt_mdi.core.strategies.strategy import Strategy


def keeps(worker, task):
    return not worker.holders(task.stage)


def target(worker, stage):
    names = sorted(neighbour.state.device for neighbour in worker.holders(stage))
    return next((name for name in names if name > worker.name), names[0] if names else None)


register("hot-potato", Strategy("Each stage on the next device", keeps, target))
'''
HELD = {"node-1": [1, 2, 3, 4], "node-2": [1, 2, 3, 4], "node-3": [1, 2, 3, 4]}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "hot_potato.py"
    path.write_text(HOT_POTATO)
    return path


def test_it_is_listed_beside_ours(plugin: Path) -> None:
    listed = mqtt_mdi("--plugin", str(plugin), "policy", "strategies").stdout
    assert "hot-potato" in listed
    assert "planner" in listed


def test_it_runs_in_the_simulator(plugin: Path, tmp_path: Path) -> None:
    scenario = {
        "name": "hot potato",
        "frames": FRAMES,
        "arrivals": {"kind": "fixed", "rate": 20},
        "policy": {"strategy": "hot-potato", "thresholds": [1.01, 1.01, 1.01]},
        "devices": [{"id": name, "stages": held, "source": name == "node-1"} for name, held in HELD.items()],
    }
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump(scenario))
    table = tmp_path / "answers.csv"
    ran = mqtt_mdi("--plugin", str(plugin), "simulate", str(path), "--json", "--csv", str(table))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["answered"] == FRAMES
    # Frames go round: node-2, node-3, node-1, node-2.
    assert {line.split(",")[7] for line in table.read_text().splitlines()[1:]} == {"node-2"}


def test_it_runs_on_the_broker(
    plugin: Path, new_pipeline: Callable[[Broker], Pipeline], mosquitto: Broker
) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.env["MDI_PLUGIN"] = str(plugin)
    patch = {"strategy": "hot-potato", "thresholds": [1.01, 1.01, 1.01]}
    pipeline.coordinator("--policy", json.dumps(patch))
    pipeline.source("node-1", "all")
    for name in ("node-2", "node-3"):
        pipeline.device(name, "all")
    for name, held in HELD.items():
        pipeline.ready(name, *held)
    _wait_until_all_know_each_other(pipeline)
    for picture in read_sample(SHIPPED_BUNDLE).pictures[:FRAMES]:
        pipeline.send("cam1", encode_png(picture).data)
    answers = pipeline.answers("cam1", FRAMES)
    assert {(answer["device"], answer["hops"]) for answer in answers} == {("node-2", 4)}


def test_devices_that_do_not_know_it_stay_with_the_policy_they_have(shared_pipeline: Pipeline) -> None:
    broker, topics = shared_pipeline.broker, shared_pipeline.topics
    reply = mqtt_mdi(
        *("policy", "set", "--broker", broker.address, "--pipeline", topics.pipeline),
        '{"strategy": "hot-potato"}',
    )
    assert reply.returncode == 2
    assert "hot-potato is not one of mdi-exit, planner" in reply.stderr


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    ran = mqtt_mdi("--plugin", str(path), "policy", "strategies")
    assert ran.returncode == 2
    assert "broken.py cannot be imported: ZeroDivisionError" in ran.stderr


def _wait_until_all_know_each_other(pipeline: Pipeline) -> None:
    """Each state echoes the stamps of the others."""

    def known() -> bool:
        last = [pipeline.client.last(pipeline.topics.device(name)) for name in HELD]
        return all(heard is not None and len(heard.json["echoes"]) == len(HELD) - 1 for heard in last)

    until(known, lambda: [pipeline.client.last(pipeline.topics.device(name)) for name in HELD])
