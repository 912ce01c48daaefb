"""What TLS, the spool and signed models cost: each beside the same thing without, taking turns."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from subprocess import Popen

import hop
import measure
import passthrough
import pipeline
import start

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sealed import Sealed
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.cli.demo import spread
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.runtime.broker import _MOSQUITTO, _wait_for, free_ports
from mqtt_mdi.runtime.broker_url import BrokerURL

HOST = "127.0.0.1"
LOADS = {"1 a message": 1, "8 a message": 8}
REPEATS = 20
"""Times a bundle is loaded in a row, in each turn."""


class Turns:
    """Figures of two rivals, in turns: the ratios of a turn are taken before anything is averaged."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], list[tuple[float, float]]] = {}

    def add(self, cost: str, without: dict[str, float], with_it: dict[str, float]) -> None:
        """Note one turn of both, by what was measured."""
        for what, figure in without.items():
            self._figures.setdefault((cost, what), []).append((figure, with_it[what]))

    def rows(self) -> list[measure.Row]:
        """Medians, and the median and range of the ratios."""
        return [self._row(cost, what, figures) for (cost, what), figures in self._figures.items()]

    def _row(self, cost: str, what: str, figures: list[tuple[float, float]]) -> measure.Row:
        ratios = [with_it / without for without, with_it in figures]
        return {
            "cost of": cost,
            "measured": what,
            "without": median(without for without, _ in figures),
            "with": median(with_it for _, with_it in figures),
            "ratio": round(median(ratios), 2),
            "least": round(min(ratios), 2),
            "most": round(max(ratios), 2),
        }


@dataclass(frozen=True)
class Broker:
    """A Mosquitto of our own."""

    url: BrokerURL
    process: Popen[bytes]


@contextmanager
def brokers() -> Iterator[tuple[Broker, Broker]]:
    """One without TLS and one with it, else the same."""
    from mqtt_mdi.runtime.certificates import issue, make_authority  # noqa: PLC0415 -- an extra

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = make_authority()
        ca, _ = authority.write(folder, "ca")
        certificate, key = issue(authority, "server", "broker", [HOST]).write(folder, "broker")
        started: list[Broker] = []
        for lines in ("", f"certfile {certificate}\nkeyfile {key}\ntls_version tlsv1.2\n"):
            url = BrokerURL(HOST, free_ports(HOST, 1))
            # As root it would become a user who may not read what lies here.
            text = _MOSQUITTO.format(host=HOST, port=url.port) + lines + "user root\n"
            file = folder / f"{url.port}.conf"
            file.write_text(text)
            process = stack.enter_context(measure.child("mosquitto", "-c", str(file)))
            _wait_for(HOST, url.port, lambda process=process: process.poll() is None, str)  # type: ignore[misc]
            started.append(Broker(replace(url, tls=True, ca=ca) if lines else url, process))
        plain, tls = started
        yield plain, tls


def _relayed(driver: hop.Driver, parts: dict[str, int], batch: int, tasks: int) -> dict[str, float]:
    topic = driver.topics.stage(passthrough.HELD, passthrough.DEVICE)
    before, began = {name: measure.cpu_seconds(pid) for name, pid in parts.items()}, time.monotonic()
    driver.relay(topic, tasks, batch, hop.STREAMING, qos=1)
    seconds = time.monotonic() - began
    spent = {name: 1e6 * (measure.cpu_seconds(pid) - before[name]) / tasks for name, pid in parts.items()}
    return {f"CPU a task, {name}, us": figure for name, figure in spent.items()} | {
        "tasks/s": tasks / seconds
    }


def hops(turns: Turns, rounds: int, tasks: int = 4000) -> None:
    """Tasks of 16 KiB at quality 1 through a device that computes nothing."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        passthrough.write_bundle(folder)
        rivals: list[tuple[hop.Driver, dict[str, int]]] = []
        for broker in stack.enter_context(brokers()):
            url = broker.url
            words = ["passthrough.py", str(url), str(folder), *([str(url.ca)] if url.ca else [])]
            device = stack.enter_context(measure.child(*words))
            driver = hop.Driver(url)
            stack.callback(driver.connection.close)
            driver.wait(
                "the device is up", lambda driver=driver: bool(driver.device and driver.device.stages)
            )  # type: ignore[misc]
            driver.demand(1)
            rivals.append((driver, {"device": device.pid, "broker": broker.process.pid}))
            _relayed(*rivals[-1], batch=1, tasks=hop.WARM_UP)
        for _ in range(rounds):
            for load, batch in LOADS.items():
                turn = [_relayed(driver, parts, batch, tasks) for driver, parts in rivals]
                turns.add(f"TLS, 16 KiB tasks, {load}", *turn)


def _streamed(url: BrokerURL, name: str, parts: Iterable[Popen[bytes]], frames: int) -> dict[str, float]:
    pids = [part.pid for part in parts]
    spent, began = -sum(map(measure.cpu_seconds, pids)), time.monotonic()
    pipeline.stream(url, name, frames)
    seconds = time.monotonic() - began
    spent += sum(map(measure.cpu_seconds, pids))
    return {"CPU a frame, all, us": 1e6 * spent / frames, "frames/s": frames / seconds}


def pipelines(turns: Turns, rounds: int, frames: int = 2000) -> None:
    """The demo's pipeline of three devices: plain, over TLS, and with a spool."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain, tls = stack.enter_context(brokers())
        spool = ("--spool", str(folder / "spool"))
        rivals: dict[str, tuple[Broker, tuple[str, ...]]] = {
            "plain": (plain, ()),
            "tls": (tls, ()),
            "spool": (plain, spool),
        }
        running = {
            name: stack.enter_context(
                pipeline.running_pipeline(broker.url, name, folder, spread(4, 3), {"source-1": options})
            )
            for name, (broker, options) in rivals.items()
        }

        def streamed(name: str, frames: int) -> dict[str, float]:
            broker, _ = rivals[name]
            source = running[name]["source-1"]
            before = measure.cpu_seconds(source.pid)
            figures = _streamed(broker.url, name, [broker.process, *running[name].values()], frames)
            spent = 1e6 * (measure.cpu_seconds(source.pid) - before) / frames
            return {"CPU a frame, source, us": spent} | figures

        for name in rivals:
            streamed(name, pipeline.WARM_UP)
        for _ in range(rounds):
            turn = {name: streamed(name, frames) for name in rivals}
            turns.add("TLS, three devices", turn["plain"], turn["tls"])
            turns.add("spool, three devices", turn["plain"], turn["spool"])


def _milliseconds(action: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(REPEATS):
        action()
    return 1000 * (time.process_time() - began) / REPEATS


def signatures(turns: Turns, rounds: int) -> None:
    """Opening the shipped bundle with and without a look at its signature, and a device's whole start."""
    from mqtt_mdi.bundle.signature import new_key, private_pem, public_pem, seal, verify  # noqa: PLC0415 -- an extra

    with tempfile.TemporaryDirectory() as name:
        private, public = Path(name) / "model.key", Path(name) / "model.pub"
        key = new_key()
        private.write_bytes(private_pem(key))
        public.write_bytes(public_pem(key))
        sealed = seal(SHIPPED_BUNDLE, private)

        def checked() -> None:
            verify(sealed, key.public_key())
            _check(sealed)

        def loaded() -> None:
            manifest = sealed.open()
            for spec in manifest.stages:
                OnnxStage(read_stage(SHIPPED_BUNDLE, spec), spec, 1)

        def verified_and_loaded() -> None:
            verify(sealed, key.public_key())
            loaded()

        for _ in range(rounds):
            for what, without, with_it in (
                ("CPU, manifest and hashes, ms", lambda: _check(sealed), checked),
                ("CPU, graphs loaded as well, ms", loaded, verified_and_loaded),
            ):
                turns.add("signature, bundle", {what: _milliseconds(without)}, {what: _milliseconds(with_it)})
        ways = {"without": [], "with": ["--model-key", str(public)]}
        answers = start.first_answers(2 * rounds, ways, ("--sign-with", str(private)))
        for pair in zip(answers[::2], answers[1::2], strict=True):
            without, with_it = ({"first answer, s": float(str(row["first answer, s"]))} for row in pair)
            turns.add("signature, device's start", without, with_it)


def _check(sealed: Sealed) -> None:
    for spec in sealed.open().stages:
        read_stage(SHIPPED_BUNDLE, spec)


def security(rounds: int = 5) -> list[measure.Row]:
    """All three."""
    turns = Turns()
    for measured in (hops, pipelines, signatures):
        measured(turns, rounds)
    return turns.rows()


def main() -> None:
    """Print the table alone."""
    measure.table("What security costs", security())


if __name__ == "__main__":
    main()
