"""One set of machines, two shells: what the simulator says of a frame is what the service does with it."""

import numpy as np
from live import Pipeline, until

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.trace import ExitTrace, read_trace
from mqtt_mdi.simulation.compute import network_of
from mqtt_mdi.simulation.scenario import Scenario
from mqtt_mdi.simulation.world import World
from mqtt_mdi.wire.frames import encode_png

FRAMES = 200
THRESHOLDS = [0.97, 0.9, 0.8]
MARGIN = 1e-3
"""Scores this close to a threshold may fall on either side of it on another machine."""


def test_every_frame_takes_the_same_exit_in_both_worlds(pipeline: Pipeline) -> None:
    sample, trace = read_sample(SHIPPED_BUNDLE), read_trace(SHIPPED_BUNDLE)
    scores = trace.score[sample.indices, :-1]
    clear = np.flatnonzero((np.abs(scores - np.asarray(THRESHOLDS)) > MARGIN).all(axis=1))[:FRAMES]
    rows = sample.indices[clear]
    sent = ExitTrace(trace.score[rows], trace.label[rows], trace.truth[rows])
    world = World(_scenario(), network_of(read_manifest(SHIPPED_BUNDLE), sent, seed=None))
    world.run()
    simulated = {int(r.frame_id): (r.exit_stage, r.label) for r in world.results}
    assert len({stage for stage, _ in simulated.values()}) > 1

    _set_thresholds(pipeline)
    for number, picture in enumerate(sample.pictures[clear]):
        pipeline.send("parity", encode_png(picture).data, CorrelationData=str(number).encode())
    answers = pipeline.answers("parity", FRAMES)
    assert {int(a["frame_id"]): (a["exit_stage"], a["label"]) for a in answers} == simulated


def _scenario() -> Scenario:
    held = {"node-1": [], "node-2": [1, 2], "node-3": [2, 3, 4], "node-4": [1, 3, 4]}
    return Scenario.model_validate(
        {
            "name": "parity",
            "frames": FRAMES,
            "arrivals": {"kind": "saturating"},
            "policy": {"thresholds": THRESHOLDS},
            "devices": [{"id": n, "stages": k, "source": n == "node-1"} for n, k in held.items()],
        }
    )


def _set_thresholds(pipeline: Pipeline) -> None:
    """Change the policy and wait until every device says it runs it."""
    topics, client = pipeline.topics, pipeline.client
    client.publish(topics.policy_set, {"thresholds": THRESHOLDS})
    version = client.wait_for_last(topics.policy, lambda said: said["thresholds"] == THRESHOLDS)["version"]
    devices = [topics.device(name) for name in ("source-1", "device-1", "device-2", "device-3")]

    def obeyed() -> bool:
        last = [client.last(topic) for topic in devices]
        return all(heard is not None and heard.json["policy_version"] == version for heard in last)

    until(obeyed, lambda: [client.last(topic) for topic in devices])
