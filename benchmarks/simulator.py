"""What the simulator costs for each event, from ten workers to ten thousand, beside a bare heap of events."""

import gc
import heapq
import json
import os
import subprocess
import sys
import time
from random import Random

import measure

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.trace import operating_point, read_trace
from mqtt_mdi.simulation.compute import network_of
from mqtt_mdi.simulation.scenario import Scenario
from mqtt_mdi.simulation.world import World

SIZES = (10, 100, 1000, 5000, 10_000)
"""Workers; 5,000 with 100,000 frames are those of the aim."""

FRAMES_A_WORKER, LEAST_FRAMES = 20, 5000
GROUP = 5
SPEED = 1e9
LOAD = 0.5
"""Share of the multiply-adds a second that the frames ask for."""


def simulator(rounds: int = 3) -> list[measure.Row]:
    """Each size in a process of its own, in turns; medians."""
    measured: list[measure.Row] = []
    for _ in range(rounds):
        for workers in SIZES:
            frames = max(FRAMES_A_WORKER * workers, LEAST_FRAMES)
            command = (sys.executable, __file__, str(workers), str(frames))
            measured.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    return measure.medians(measured, "workers")


def simulated(workers: int, frames: int) -> measure.Row:
    """One world, made and run in this process; wall time includes the making."""
    manifest, trace = read_manifest(SHIPPED_BUNDLE), read_trace(SHIPPED_BUNDLE)
    network = network_of(manifest, trace, seed=1)
    share = operating_point(trace, manifest.thresholds, manifest.macs_shares).macs_share
    document = {
        "name": "groups",
        "frames": frames,
        "arrivals": {"kind": "poisson", "rate": LOAD * workers * SPEED / (share * manifest.full_macs)},
        "policy": {"strategy": "mdi-exit"},
        "devices": [
            {"id": f"device-{n}", "macs_per_second": SPEED, "source": n % GROUP == 0} for n in range(workers)
        ],
        "topology": "groups",
        "group": GROUP,
    }
    began = time.perf_counter()
    world = World(Scenario.model_validate(document), network)
    made = time.process_time()
    report = world.run()
    cpu, wall = time.process_time() - made, time.perf_counter() - began
    if report.answered != frames:
        raise RuntimeError(f"{report.answered} of {frames} frames were answered")
    resident = measure.resident_mib(os.getpid(), peak=True)
    event, bare = 1e6 * cpu / report.events, 1e6 * bare_heap(workers, report.events) / report.events
    return {
        "workers": workers,
        "frames": frames,
        "events": report.events,
        "wall, s": wall,
        "CPU an event, us": event,
        "bare heap, us": bare,
        "event / bare": event / bare,
        "CPU a frame, us": 1e6 * cpu / frames,
        "peak resident, MiB": resident,
    }


def bare_heap(pending: int, count: int) -> float:
    """CPU seconds for `count` events that do nothing, of which `pending` wait at a time."""
    rng = Random(1)
    heap = [(rng.random(), serial, bool, ()) for serial in range(pending)]
    heapq.heapify(heap)
    gc.disable()
    began = time.process_time()
    for serial in range(pending, pending + count):
        now, _, action, given = heapq.heappop(heap)
        action(*given)
        heapq.heappush(heap, (now + rng.random(), serial, bool, ()))
    return time.process_time() - began


def main() -> None:
    """Print the table alone, or the figures of one size as JSON."""
    if len(sys.argv) > 1:
        workers, frames = map(int, sys.argv[1:])
        print(json.dumps(simulated(workers, frames)))
    else:
        measure.table("CPU for each event of a simulation", simulator())


if __name__ == "__main__":
    main()
