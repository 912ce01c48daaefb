"""The flow of deploy/node-red in a real Node-RED: its picture is answered, its buttons change the policy."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from live import PATIENCE_S, Broker, Pipeline, until

FLOW = Path(__file__).parents[2] / "deploy" / "node-red" / "flow.json"
MODULES = Path(sys.prefix) / "node-red" / "node_modules"
NODE = shutil.which("node")
CORE = {"tab", "mqtt-broker", "comment", "inject", "function", "mqtt in", "mqtt out", "debug"}
START_S = 120.0

needs_node_red = pytest.mark.skipif(
    NODE is None or not (MODULES / "node-red").is_dir(),
    reason="no Node-RED: `make test` installs it in .venv/node-red where npm and its registry are there",
)


class NodeRed:
    """Its admin interface: presses buttons, reads what the flow keeps."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"

    def press(self, node: str) -> None:
        with urlopen(Request(f"{self.root}/inject/{node}", method="POST"), timeout=PATIENCE_S) as response:
            assert response.status == 200

    def kept(self, name: str) -> Any:  # noqa: ANN401 -- whatever the flow keeps
        """A value of the flow's context; None where there is none yet."""
        try:
            with urlopen(f"{self.root}/context/flow/mdi-tab/{name}", timeout=PATIENCE_S) as response:
                found = json.load(response)
        except HTTPError:
            return None
        return json.loads(found["msg"]) if "msg" in found and found["format"] != "undefined" else None


@contextmanager
def node_red(folder: Path, flow: list[dict[str, Any]]) -> Iterator[NodeRed]:
    (folder / "flow.json").write_text(json.dumps(flow))
    log = folder / "node-red.log"
    script = Path(__file__).with_name("node_red.js")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(NODE), str(script), str(MODULES), str(folder)], stdout=output, stderr=output, cwd=folder
        )

    def port() -> int | None:
        assert process.poll() is None, log.read_text()
        return next(
            (int(line[5:]) for line in log.read_text().splitlines() if line.startswith("PORT ")), None
        )

    try:
        started = until(port, log.read_text, START_S)
        until(lambda: "Connected to broker" in log.read_text(), log.read_text, START_S)
        assert started is not None
        yield NodeRed(started)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_the_flow_needs_no_other_nodes_and_names_one_pipeline() -> None:
    flow = json.loads(FLOW.read_text())
    assert {node["type"] for node in flow} == CORE
    ids = [node["id"] for node in flow]
    assert len(ids) == len(set(ids))
    assert {target for node in flow for wire in node.get("wires", []) for target in wire} < set(ids)
    topics = {node["topic"] for node in flow if node["type"] in ("mqtt in", "mqtt out")}
    assert all(topic.startswith("mdi/v1/demo/") for topic in topics)


@needs_node_red
def test_it_has_its_picture_answered_and_changes_the_policy(
    mosquitto: Broker, names: Iterator[str], tmp_path: Path
) -> None:
    with Pipeline(mosquitto, next(names), tmp_path) as pipeline:
        pipeline.bring_up({"device-1": "1,2,3,4"})
        flow = json.loads(FLOW.read_text().replace("mdi/v1/demo/", f"{pipeline.topics.root}/"))
        broker = next(node for node in flow if node["type"] == "mqtt-broker")
        broker |= {"broker": mosquitto.url.host, "port": str(mosquitto.url.port)}
        with node_red(tmp_path, flow) as running:
            running.press("mdi-send")
            [answer] = pipeline.answers("node-red", 1)
            assert (answer["status"], answer["class_name"]) == ("ok", "Trouser")
            assert answer["frame_id"].startswith("node-red-")
            assert until(lambda: running.kept("answer")) == answer
            until(lambda: running.kept("online") == ["device-1", "source-1"], lambda: running.kept("online"))
            until(lambda: (running.kept("metrics") or {}).get("devices_online") == 2)

            running.press("mdi-surer")
            policy = pipeline.client.wait_for_last(pipeline.topics.policy, lambda said: said["version"] == 2)
            assert policy["thresholds"] == [0.99, 0.99, 0.99]
            assert until(lambda: running.kept("reply")) == {"accepted": True, "version": 2}
