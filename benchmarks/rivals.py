"""Answering frames with the cores of one machine: ours, and what else one could run there."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen

import measure
import networks
import numpy as np
import pipeline

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.engine.base import Engine
from mqtt_mdi.runtime.broker import free_ports
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.wire.frames import Frame, decode_frame, encode_png
from mqtt_mdi.wire.inputs import InputSpec

STATIC_BUNDLE = SHIPPED_BUNDLE.with_name("fashion-mnist-static")
PATIENCE_S, GLOO_PATIENCE_S = 20.0, 120.0
IN_FLIGHT = 64
RAW_IN, RAW_OUT = "raw/in", "raw/out"

HALVES, WHOLES = [[1, 2], [3, 4]], [[1, 2, 3, 4], [1, 2, 3, 4]]

OURS: dict[str, tuple[Sequence[Sequence[int]], str]] = {
    "ours, two halves, no early exits": (HALVES, "no-exit"),
    "ours, two halves, early exits": (HALVES, "mdi-exit"),
    "ours, two whole networks (ddi)": (WHOLES, "ddi"),
}
"""Stages of the two devices, and the strategy."""

GLOO = {
    f"gloo, two halves, {name}, microbatches of {size}": (size, mode)
    for mode, name in (("eager", "torch"), ("script", "TorchScript"))
    for size in (1, 8)
}

Turn = Callable[[int], measure.Row]
"""Answers so many frames and says what that took."""


def _figures(frames: int, seconds: float, cpu: float, right: float | None) -> measure.Row:
    return {
        "frames/s": frames / seconds,
        "CPU ms a frame": 1000 * cpu / frames,
        "right, %": "" if right is None else 100 * right,
    }


def one_process(
    chain: Sequence[Engine], thresholds: Sequence[float], spec: InputSpec, frames: int
) -> measure.Row:
    """Decode pictures and run them through a chain of stages in this process, until an exit is sure."""
    pictures, labels = _pictures()
    right = 0
    began, spent = time.monotonic(), time.process_time()
    for number in range(frames):
        values = decode_frame(pictures[number % len(pictures)], spec)
        for engine, threshold in zip(chain, (*thresholds, 0.0), strict=True):
            output = engine.run(values)
            if output.activation is None or output.scores[0] >= threshold:
                break
            values = output.activation
        right += int(output.labels[0]) == labels[number % len(labels)]
    return _figures(frames, time.monotonic() - began, time.process_time() - spent, right / frames)


def over_gloo(size: int, mode: str, frames: int) -> measure.Row:
    """Two processes of torch.distributed.pipelining (gpipe.py), for a third of the frames."""
    frames //= 3
    port = str(free_ports("127.0.0.1", 1))
    script = str(measure.HERE / "gpipe.py")
    ranks = [
        Popen([sys.executable, script, str(rank), port, str(size), str(frames), mode], stdout=PIPE)
        for rank in (0, 1)
    ]
    try:
        said = [json.loads(rank.communicate(timeout=GLOO_PATIENCE_S)[0]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    last = said[-1]
    return _figures(last["frames"], last["seconds"], sum(one["cpu"] for one in said), last["right"])


def over_mqtt(url: BrokerURL, name: str, pids: Sequence[int], frames: int) -> measure.Row:
    """One of our pipelines; CPU is of all its processes and the broker's, without the sensor."""
    _, labels = _pictures()
    spent, began = -sum(map(measure.cpu_seconds, pids)), time.monotonic()
    results = pipeline.stream(url, name, frames)
    seconds = time.monotonic() - began
    spent += sum(map(measure.cpu_seconds, pids))
    truth = [labels[int(result.frame_id.rpartition("-")[2]) % len(labels)] for result in results]
    right = sum(result.label == label for result, label in zip(results, truth, strict=True))
    return _figures(frames, seconds, spent, right / frames)


def over_wire(url: BrokerURL, size: int, pids: Sequence[int], frames: int) -> measure.Row:
    """Activations to a relay that computes nothing, and back; CPU is the relay's and the broker's."""
    payload = np.random.default_rng(0).bytes(size)
    connection = Connection(url, "bench-wire", on_connected=lambda: connection.subscribe(RAW_OUT, qos=0))
    try:
        while not connection.connected:
            connection.poll(0.05)
        spent, began = -sum(map(measure.cpu_seconds, pids)), time.monotonic()
        sent = came = 0
        while came < frames:
            if time.monotonic() > began + PATIENCE_S:
                raise RuntimeError(f"{frames - came} of {frames} messages did not come out")
            while sent < frames and sent - came < IN_FLIGHT:
                connection.publish(RAW_IN, payload)
                sent += 1
            came += len(connection.poll(0.05))
        seconds = time.monotonic() - began
        return _figures(frames, seconds, spent + sum(map(measure.cpu_seconds, pids)), None)
    finally:
        connection.close()


def _pictures() -> tuple[list[Frame], list[int]]:
    sample = read_sample(SHIPPED_BUNDLE)
    return [encode_png(picture) for picture in sample.pictures], sample.labels.tolist()


def _broker_pid() -> int:
    """The only child of this process so far."""
    (pid,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(pid)


@contextmanager
def running_rivals() -> Iterator[dict[str, Turn]]:
    """All rivals by name; those over MQTT are up all the time."""
    shipped = networks.shipped()
    manifest, spec = shipped.manifest, shipped.manifest.input
    whole = [networks.joined(shipped.graphs, every_exit=False)]
    in_one = {
        "one process, one graph, no early exits": (whole, ()),
        "one process, stages, early exits": (shipped.graphs, manifest.thresholds),
        "one process, smaller static network": (networks.graphs_of(STATIC_BUNDLE), ()),
    }
    turns: dict[str, Turn] = {
        name: partial(one_process, networks.loaded(graphs), thresholds, spec)
        for name, (graphs, thresholds) in in_one.items()
    }
    turns |= {name: partial(over_gloo, size, mode) for name, (size, mode) in GLOO.items()}
    with ExitStack() as stack:
        url = stack.enter_context(measure.broker())
        broker = _broker_pid()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, (name, (devices, strategy)) in enumerate(OURS.items()):
            own = f"rival-{number}"
            parts = stack.enter_context(pipeline.running_pipeline(url, own, folder, devices))
            pipeline.set_policy(url, own, {"strategy": strategy})
            pipeline.stream(url, own, pipeline.WARM_UP)
            pids = [broker, *(process.pid for process in parts.values())]
            turns[name] = partial(over_mqtt, url, own, pids)
        relay = stack.enter_context(measure.child("relay.py", url.host, str(url.port), RAW_IN, RAW_OUT))
        size = manifest.stage(2).activation_bytes
        turns["paho relay, activations, no network"] = partial(over_wire, url, size, [broker, relay.pid])
        yield turns


def rivals(rounds: int = 5, frames: int = 2000) -> list[measure.Row]:
    """Frames a second and CPU for each; rivals take turns, and ratios are those of a round."""
    measured: list[measure.Row] = []
    with running_rivals() as turns:
        for _ in range(rounds):
            row = {name: {"rival": name} | turn(frames) for name, turn in turns.items()}
            first = next(iter(row.values()))
            measured += [one | _against(one, first) for one in row.values()]
    return measure.medians(measured, "rival")


def _against(row: measure.Row, first: measure.Row) -> measure.Row:
    rate, cpu = (float(str(row[name])) / float(str(first[name])) for name in ("frames/s", "CPU ms a frame"))
    return {"rate, of the first": rate, "CPU, of the first": cpu}


def main() -> None:
    """Print the table alone."""
    measure.table("Answering frames on one machine", rivals())


if __name__ == "__main__":
    main()
