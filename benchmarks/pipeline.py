"""The demo's pipeline beside one device that holds the whole network, and frames of QoS 0 beside QoS 1."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen

import measure

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.cli.demo import spread
from mqtt_mdi.cli.policy import PolicyShell
from mqtt_mdi.core.coordinator import quantile
from mqtt_mdi.core.types import Result
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.sensor import SensorSettings, SensorShell, Tally, wait_until_ready
from mqtt_mdi.wire.frames import encode_png

READY_S = 30.0
CALM_RATE = 100.0
CALM_FRAMES = 300
WARM_UP = 300

NO_OPTIONS: Mapping[str, Sequence[str]] = {}

RIVALS: dict[str, tuple[list[list[int]], int]] = {
    "one-device": (spread(4, 1), 0),
    "three-devices-qos-0": (spread(4, 3), 0),
    "three-devices-qos-1": (spread(4, 3), 1),
}
"""Stages of each device, and the quality of service of frames between devices."""


def command(verb: str, url: BrokerURL, pipeline: str, name: str) -> list[str]:
    """A service of ours as a command line."""
    broker = ["--broker", str(url), "--pipeline", pipeline, *(["--ca", str(url.ca)] if url.ca else [])]
    return [sys.executable, "-m", "mqtt_mdi", verb, *broker, *(["--id", name] if name else [])]


@contextmanager
def running_pipeline(
    url: BrokerURL,
    pipeline: str,
    folder: Path,
    devices: Sequence[Sequence[int]],
    options: Mapping[str, Sequence[str]] = NO_OPTIONS,
) -> Iterator[dict[str, Popen[bytes]]]:
    """A coordinator, a source without stages, and a device for each set of stages; `options` by name."""
    commands = {
        "coordinator": [*command("coordinator", url, pipeline, ""), "--db", str(folder / f"{pipeline}.db")],
        "source-1": command("source", url, pipeline, "source-1"),
    }
    for number, stages in enumerate(devices, 1):
        name, held = f"device-{number}", ",".join(map(str, stages))
        commands[f"{name}, stages {held}"] = [*command("device", url, pipeline, name), "--stages", held]
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(measure.child(*words, *options.get(name, ())))
            for name, words in commands.items()
        }


def set_policy(url: BrokerURL, pipeline: str, patch: dict[str, object]) -> None:
    """Change a running pipeline's policy; ConfigError when it is refused."""
    PolicyShell(url, pipeline).ask(READY_S, "is the coordinator up?")
    shell = PolicyShell(url, pipeline, json.dumps(patch).encode())
    shell.ask(READY_S, "is the coordinator up?")
    assert shell.reply is not None, "asked"
    assert shell.reply.accepted, shell.reply.reason


def stream(
    url: BrokerURL,
    pipeline: str,
    frames: int,
    rate: float | None = None,
    heard: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Send sample pictures, as fast as a window of 64 allows or at a rate; the answers in order.

    `heard` is called at each answer.
    """
    sample = read_sample(SHIPPED_BUNDLE)
    results: list[Result] = []

    def answered(result: Result, _tally: Tally) -> None:
        results.append(result)
        heard()

    pictures = [encode_png(picture) for picture in sample.pictures]
    shell = SensorShell(SensorSettings(url, pipeline, "bench", frames, rate), pictures, (), answered)
    wait_until_ready(shell, READY_S, lambda _missing: None)
    tally = shell.serve()
    assert (tally.answered, tally.duplicates) == (frames, 0), tally
    return results


def _measure(url: BrokerURL, name: str, processes: Iterable[Popen[bytes]], frames: int) -> measure.Row:
    pids = [process.pid for process in processes]
    spent, began = -sum(map(measure.cpu_seconds, pids)), time.monotonic()
    flooded = [result.latency_ms for result in stream(url, name, frames)]
    seconds = time.monotonic() - began
    spent += sum(map(measure.cpu_seconds, pids))
    calm = [result.latency_ms for result in stream(url, name, CALM_FRAMES, CALM_RATE)]
    return {
        "pipeline": name,
        "frames/s": frames / seconds,
        "p50 ms": quantile(flooded, 0.5),
        "p95 ms": quantile(flooded, 0.95),
        f"p50 ms at {CALM_RATE:.0f}/s": quantile(calm, 0.5),
        f"p95 ms at {CALM_RATE:.0f}/s": quantile(calm, 0.95),
        "CPU ms a frame": 1000 * spent / frames,
    }


def pipelines(rounds: int = 5, frames: int = 2000) -> list[measure.Row]:
    """All rivals are up all the time and take turns; the machine's cores are shared by everything."""
    measured: list[measure.Row] = []
    with ExitStack() as stack:
        url = stack.enter_context(measure.broker())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = {
            name: stack.enter_context(running_pipeline(url, name, folder, devices))
            for name, (devices, _qos) in RIVALS.items()
        }
        for name, (_devices, qos) in RIVALS.items():
            set_policy(url, name, {"data_qos": qos})
            stream(url, name, WARM_UP)
        for _ in range(rounds):
            measured += [_measure(url, name, parts.values(), frames) for name, parts in running.items()]
    return _against_first(measure.medians(measured, "pipeline"))


def _against_first(rows: list[measure.Row]) -> list[measure.Row]:
    """Throughput once more, as a share of the first row's."""
    first = float(str(rows[0]["frames/s"]))
    return [{**row, "of the first": float(str(row["frames/s"])) / first} for row in rows]


def main() -> None:
    """Print the table alone."""
    measure.table("The demo's pipeline and one device with the whole network", pipelines())


if __name__ == "__main__":
    main()
