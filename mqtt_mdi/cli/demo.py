"""`mqtt-mdi demo`: the whole service on this machine, every part a process of its own."""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, Manifest, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.trace import read_trace
from mqtt_mdi.cli.options import FiniteRange, bundle_option, stop_on_signals
from mqtt_mdi.cli.page import page_installed, page_options
from mqtt_mdi.cli.stream import READY_S, stream_sample
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker import choose, free_ports, running_broker
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.processes import Part, running
from mqtt_mdi.runtime.sensor import SensorSettings, SensorShell, Tally, wait_until_ready
from mqtt_mdi.storage.store import Summary, read_summary
from mqtt_mdi.web.address import LOOPBACK, Address, PageSettings, new_token
from mqtt_mdi.wire.frames import encode_png

STORED_WITHIN_S = 20.0
PRIVATE = ("auto", "mosquitto", "embedded")


def spread(stage_count: int, devices: int) -> list[list[int]]:
    """Stages for each device: neighbouring ones, and each stage twice wherever there are two devices.

    So any one device can be unplugged.
    """
    run = min(stage_count, -(-2 * stage_count // devices))
    firsts = [round(index * stage_count / devices) for index in range(devices)]
    return [sorted((first + step) % stage_count + 1 for step in range(run)) for first in firsts]


@contextmanager
def running_parts(
    broker: BrokerURL,
    pipeline: str,
    bundle: Path,
    database: Path,
    devices: int,
    emulate: float | None,
    page: PageSettings,
    go_on: Callable[[], None],
) -> Iterator[list[Part]]:
    """A coordinator, with its page if there is an address for it, a source and devices, started together.

    `go_on` is asked before each start; what it raises ends those that were started.
    """
    manifest = read_manifest(bundle)
    common = ["--pipeline", pipeline]
    parts = {
        "coordinator": ["coordinator", *common, "--bundle", str(bundle), "--db", str(database)],
        "source-1": ["source", *common, "--id", "source-1", "--stages", "none"],
    }
    if page.address is not None:
        parts["coordinator"] += ["--http", str(page.address)]
        for option, file in (("--http-cert", page.cert), ("--http-key", page.key)):
            parts["coordinator"] += [] if file is None else [option, str(file)]
    for number, stages in enumerate(spread(manifest.stage_count, devices), 1):
        held = ",".join(map(str, stages))
        parts[f"device-{number}"] = ["device", *common, "--id", f"device-{number}", "--stages", held]
        if emulate is not None:
            parts[f"device-{number}"] += ["--emulate", str(emulate)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mqtt-mdi-demo-")))
        started = []
        for name, arguments in parts.items():
            go_on()
            started.append(stack.enter_context(running(name, arguments, broker, folder)))
        yield started


@click.command(short_help="Run the whole service on this machine.")
@click.option(
    "--frames",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    envvar="MDI_FRAMES",
    help="Sample pictures to send.",
)
@click.option(
    "--devices",
    type=click.IntRange(1, 32),
    default=3,
    show_default=True,
    envvar="MDI_DEVICES",
    help="Processes that run stages.",
)
@click.option(
    "--emulate",
    type=FiniteRange(0, min_open=True),
    envvar="MDI_EMULATE",
    help="Have each device pass for a slower one, of so many multiply-adds a second: 1e8 is a small board.",
)
@click.option(
    "--broker",
    default="auto",
    show_default=True,
    envvar="MDI_BROKER",
    help="auto, mosquitto, embedded, or the URL of a broker that runs already.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    envvar="MDI_PORT",
    help="The broker's port; 0 takes a free one.",
)
@click.option(
    "--pipeline", default="demo", show_default=True, envvar="MDI_PIPELINE", help="The name in all topics."
)
@click.option(
    "--db",
    "database",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MDI_DB",
    help="New SQLite file.  [default: runs/demo-DATE-TIME.db]",
)
@bundle_option("Folder of a model with a sample; the shipped one by default.", SHIPPED_BUNDLE)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on the last line.")
@page_options("a free port of this machine, if `mqtt-mdi[page]` is installed")
@click.option("--serve", is_flag=True, help="Send no frames; stay up for yours.")
def demo(
    frames: int,
    devices: int,
    emulate: float | None,
    broker: str,
    port: int,
    pipeline: str,
    database: Path | None,
    bundle: Path,
    as_json: bool,
    page: PageSettings,
    serve: bool,
) -> None:
    """Run the whole service here: a broker, a coordinator, a source, three devices, a sensor.

    \b
    Examples:
      mqtt-mdi demo                    a thousand pictures, then a table
      mqtt-mdi demo --devices 5 --json
      mqtt-mdi demo --emulate 1e8      what three slow boards would do
      mqtt-mdi demo --serve            stay up, and answer what any MQTT client sends
    """  # noqa: D301 -- click's mark for lines to keep
    database = database or Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}.db"
    if database.exists() and not serve:
        raise ConfigError(f"--db {database} exists: the demo begins a new database, choose another path")
    database.parent.mkdir(parents=True, exist_ok=True)
    stopped = threading.Event()
    stop_on_signals(stopped.set)  # and nothing is raised in the middle of a start, which would lose a process
    with ExitStack() as stack:
        url = (
            stack.enter_context(running_broker(choose(broker), port))
            if broker in PRIVATE
            else BrokerURL.parse(broker)
        )
        page, address = _page(page)
        parts = stack.enter_context(
            running_parts(url, pipeline, bundle, database, devices, emulate, page, lambda: _check(stopped))
        )
        if address is not None and not serve:
            click.echo(f"watch it on {address}", err=True)
        if serve:
            embedded = broker in PRIVATE and choose(broker) == "embedded"
            _serve(url, pipeline, parts, database, address, stopped, embedded=embedded)
            return
        settings = SensorSettings(url, pipeline, "cam1", frames)
        tally = stream_sample(settings, bundle, lambda: _check(stopped, parts))
        if not tally.sent:
            raise KeyboardInterrupt
        summary = _wait_until_stored(database, pipeline, tally)
    figures = _figures(summary, tally, bundle, database)
    _print_table(figures)
    if as_json:
        click.echo(json.dumps(figures))
    if tally.sent != frames or tally.answered != frames or tally.duplicates:
        sys.exit(1)


def _check(stopped: threading.Event, parts: Sequence[Part] = ()) -> None:
    """Raise KeyboardInterrupt when we were told to stop, ConfigError when a part has ended."""
    if stopped.is_set():
        raise KeyboardInterrupt
    for part in parts:
        part.check()


def _page(page: PageSettings) -> tuple[PageSettings, str | None]:
    """Where the coordinator is to serve its page, and what to open; the token goes by the environment."""
    if page.address is None and not page_installed():
        return page, None
    address = page.address or Address(LOOPBACK, 0)
    address = replace(address, port=address.port or free_ports(address.host, 1))
    token = page.token or (None if address.is_loopback else new_token())
    if token is not None:
        os.environ["MDI_HTTP_TOKEN"] = token  # not on the command line, where everybody could read it
    return replace(page, address=address), address.url(token, tls=page.tls)


def _serve(
    url: BrokerURL,
    pipeline: str,
    parts: list[Part],
    database: Path,
    address: str | None,
    stopped: threading.Event,
    *,
    embedded: bool,
) -> None:
    watcher = SensorShell(
        SensorSettings(url, pipeline, "watcher", 0), [encode_png(np.zeros((1, 1), np.uint8))]
    )

    wait_until_ready(watcher, READY_S, lambda _missing: _check(stopped, parts))
    watcher.connection.close()
    # Mosquitto's clients speak MQTT 3.1.1 unless told otherwise; the embedded broker takes that elsewhere.
    where = f"-h {url.host} -p {url.port + 1 if embedded else url.port}"
    if url.username:
        where += f" -u {url.username} -P PASSWORD"
    click.echo(f"pipeline {pipeline} is up on {url}, database {database}; stop it with Ctrl-C")
    if address is not None:
        click.echo(f"See and steer it: {address}")
    click.echo("Send a picture, and hear the answer:")
    click.echo(f"  mosquitto_sub {where} -t 'mdi/v1/{pipeline}/results/cam1' &")
    click.echo(f"  mosquitto_pub {where} -t mdi/v1/{pipeline}/frames/cam1 -f picture.jpg")
    click.echo("Change the policy:")
    patch = '{"thresholds":[0.99,0.99,0.99]}'
    click.echo(f"  mosquitto_pub {where} -t mdi/v1/{pipeline}/policy/set -m '{patch}'")
    while not stopped.wait(1.0):
        for part in [part for part in parts if part.process.poll() is not None]:
            parts.remove(part)
            click.echo(f"{part.name} ended with code {part.process.returncode}; the others go on", err=True)


def _wait_until_stored(database: Path, pipeline: str, tally: Tally) -> Summary:
    """The coordinator writes a moment after the sensor hears; wait for it to be through."""
    deadline = time.monotonic() + STORED_WITHIN_S
    owed = tally.answered + tally.failed
    while (summary := read_summary(database, pipeline))["frames"] < owed or summary["graded"] < tally.graded:
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{database} holds {summary['frames']} of {owed} results: look at its coordinator"
            )
        time.sleep(0.05)
    return summary


def _figures(summary: Summary, tally: Tally, bundle: Path, database: Path) -> dict[str, object]:
    """What --json prints; accuracy and throughput are the database's."""
    manifest = read_manifest(bundle)
    exits = {exit_["exit_stage"]: exit_["frames"] for exit_ in summary["exits"]}
    by_stage = [exits.get(stage, 0) for stage in range(1, manifest.stage_count + 1)]
    return {
        "frames": tally.sent,
        "answered": summary["answered"],
        "failed": summary["failed"],
        "duplicates": tally.duplicates,
        "accuracy": summary["accuracy"],
        "full_accuracy": _full_accuracy(bundle, tally.sent),
        "throughput": summary["throughput"],
        "latency_p50_ms": summary["latency_p50_ms"],
        "latency_p95_ms": summary["latency_p95_ms"],
        "exits": by_stage,
        "mean_macs_share": _mean_macs_share(manifest, by_stage),
        "db": str(database),
    }


def _full_accuracy(bundle: Path, frames: int) -> float:
    """Accuracy of the last exit on the very frames that were sent, from the exit trace."""
    sample, trace = read_sample(bundle), read_trace(bundle)
    right = trace.label[sample.indices, -1] == sample.labels
    return float(np.resize(right, frames).mean())


def _mean_macs_share(manifest: Manifest, exits: list[int]) -> float | None:
    answered = sum(exits)
    if not answered:
        return None
    return sum(count * share for count, share in zip(exits, manifest.macs_shares, strict=True)) / answered


def _print_table(figures: dict[str, object]) -> None:
    def percent(value: object) -> str:
        return f"{100 * value:.2f}%" if isinstance(value, float) else "-"

    def number(value: object, unit: str) -> str:
        return f"{value:.1f} {unit}" if isinstance(value, float) else "-"

    exits = figures["exits"]
    assert isinstance(exits, list)
    total = sum(exits) or 1
    table = Table(title="What the pipeline did", show_header=False)
    rows = {
        "frames": str(figures["frames"]),
        "answered": str(figures["answered"]),
        "failed": str(figures["failed"]),
        "doubled": str(figures["duplicates"]),
        "accuracy": percent(figures["accuracy"]),
        "accuracy of the full network": percent(figures["full_accuracy"]),
        "multiply-adds of the full network": percent(figures["mean_macs_share"]),
        "left at exit": "  ".join(f"{k}: {100 * n / total:.0f}%" for k, n in enumerate(exits, 1)),
        "throughput": number(figures["throughput"], "frames/s"),
        "latency, median": number(figures["latency_p50_ms"], "ms"),
        "latency, 95th percentile": number(figures["latency_p95_ms"], "ms"),
        "database": str(figures["db"]),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
