"""The processes of the service: `coordinator`, `source`, `device`, `sensor`."""

import platform
import re
from pathlib import Path
from typing import Literal

import click

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, StageSpec
from mqtt_mdi.cli.options import (
    BytesType,
    FiniteRange,
    StagesType,
    broker_options,
    bundle_option,
    stop_on_signals,
)
from mqtt_mdi.cli.page import page_options, showing
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.web.address import PageSettings

Stages = frozenset[int] | Literal["all"]


def default_id(role: str) -> str:
    """A name from the host's: unlike on most networks, unless two of a role share a machine."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", platform.node()) or "host"
    return f"{role}-{host}"[:64]


@click.command(short_help="Publish the model and the policy, keep the results.")
@broker_options
@bundle_option("Folder of the model to publish; the shipped one by default.", SHIPPED_BUNDLE)
@click.option(
    "--db",
    "database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("mqtt-mdi.db"),
    show_default=True,
    envvar="MDI_DB",
    help="SQLite file for results, policies, devices and throughput.",
)
@click.option(
    "--policy",
    "patch",
    default="{}",
    envvar="MDI_POLICY",
    help="JSON merge patch on the first policy; a database or broker that has one goes before it.",
)
@click.option(
    "--sign-with",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MDI_SIGN_WITH",
    help="Private key, as `mqtt-mdi certs` makes it, to sign the model with.  [default: as the bundle is "
    "signed, if it is]",
)
@click.option(
    "--watch-broker",
    is_flag=True,
    envvar="MDI_WATCH_BROKER",
    help="Tell in the metrics what Mosquitto drops. Other brokers may end the connection for asking.",
)
@page_options("no page")
def coordinator(
    broker: BrokerURL,
    pipeline: str,
    bundle: Path,
    database: Path,
    patch: str,
    sign_with: Path | None,
    watch_broker: bool,
    page: PageSettings,
) -> None:
    """Publish the model and the policy, store results, answer changes of policy.

    Frames do not pass through the coordinator: sources and devices go on while it is down, and the
    broker keeps the results for it. With --http it serves a page that shows and steers all of it.

    \b
    Example:
      mqtt-mdi coordinator --http :8080
      mqtt-mdi coordinator --broker mqtt://gateway --db /var/lib/mqtt-mdi/cams.db
      mqtt-mdi coordinator --policy '{"strategy": "planner"}'
      sqlite3 /var/lib/mqtt-mdi/cams.db 'select * from summary'
    """  # noqa: D301 -- click's mark for lines to keep
    from mqtt_mdi.planning.solve import solver  # noqa: PLC0415 -- only a coordinator plans
    from mqtt_mdi.runtime.coordinator import CoordinatorSettings, CoordinatorShell  # noqa: PLC0415 -- SQLAlchemy

    settings = CoordinatorSettings(broker, pipeline, bundle, database, patch, sign_with, watch_broker)
    shell = CoordinatorShell(settings, solver(bundle))
    with showing(shell, page):
        stop_on_signals(shell.stop)
        shell.serve()


def _device_options(default_stages: str) -> list[click.Option]:
    return [
        click.Option(
            ["--stages"],
            type=StagesType(),
            default=default_stages,
            show_default=True,
            envvar="MDI_STAGES",
            help="Stages to run: 1,2 or all or none. A policy's placement goes before it.",
        ),
        click.Option(
            ["--threads"],
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            envvar="MDI_THREADS",
            help="Threads that run a stage.",
        ),
        click.Option(
            ["--emulate"],
            type=FiniteRange(0, min_open=True),
            envvar="MDI_EMULATE",
            help="Pass for a slower device, of so many multiply-adds a second: 1e8 is a small board.",
        ),
        click.Option(
            ["--memory"],
            type=BytesType(),
            envvar="MDI_MEMORY",
            help="What a planner may fill with stages, like 800kB; 0 for none.  [default: without limit]",
        ),
        click.Option(
            ["--model-key"],
            type=click.Path(dir_okay=False, path_type=Path),
            envvar="MDI_MODEL_KEY",
            help="Public key; run no model but those signed with its private key.  [default: any, with a "
            "warning]",
        ),
    ]


@click.command(params=_device_options("all"), short_help="Run stages of the network.")
@broker_options
@click.option("--id", "name", envvar="MDI_ID", help="Name of this device.  [default: device-HOSTNAME]")
@bundle_option("Folder of the model; without it the stages come from the coordinator over MQTT.")
def device(
    stages: Stages,
    threads: int,
    emulate: float | None,
    memory: int | None,
    model_key: Path | None,
    broker: BrokerURL,
    pipeline: str,
    name: str | None,
    bundle: Path | None,
) -> None:
    """Run stages of the network for whoever sends frames.

    \b
    Example, on each board:
      MDI_BROKER=mqtt://gateway mqtt-mdi device --id pi-1 --stages 2,3
    """  # noqa: D301 -- click's mark for lines to keep
    from mqtt_mdi.engine.memory import share_one_heap  # noqa: PLC0415 -- slow to import
    from mqtt_mdi.engine.onnx import OnnxStage  # noqa: PLC0415 -- slow to import
    from mqtt_mdi.runtime.device import Device, DeviceSettings  # noqa: PLC0415 -- slow to import

    settings = DeviceSettings(
        broker, pipeline, name or default_id("device"), stages, bundle, emulate, memory, model_key
    )
    share_one_heap()
    shell = Device(settings, lambda graph, spec: OnnxStage(graph, spec, threads))
    stop_on_signals(shell.stop)
    shell.serve()


@click.command(params=_device_options("none"), short_help="Admit frames and answer each once.")
@broker_options
@click.option("--id", "name", envvar="MDI_ID", help="Name of this source.  [default: source-HOSTNAME]")
@bundle_option("Folder of the model; without it the stages come from the coordinator over MQTT.")
@click.option(
    "--sensors",
    default="",
    envvar="MDI_SENSORS",
    help="Sensors to admit, like cam1,cam2; all by default. Two sources must not share a sensor.",
)
@click.option(
    "--spool",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MDI_SPOOL",
    help="SQLite file to keep frames in until they are answered, over a crash and a power cut.",
)
def source(
    stages: Stages,
    threads: int,
    emulate: float | None,
    memory: int | None,
    model_key: Path | None,
    broker: BrokerURL,
    pipeline: str,
    name: str | None,
    bundle: Path | None,
    sensors: str,
    spool: Path | None,
) -> None:
    """Admit sensors' frames, own each until it is answered, publish the one answer.

    With --stages 1,2 it computes, too, as in MDI-Exit; with none it passes pictures on as they came.
    With --spool what it has taken in is answered even when it is killed and started again.

    \b
    Example, and a frame for it from any MQTT client:
      mqtt-mdi source --stages 1
      mqtt-mdi source --spool /var/lib/mqtt-mdi/source.spool
      mosquitto_pub -t mdi/v1/demo/frames/cam1 -f picture.jpg
      mosquitto_sub -t mdi/v1/demo/results/cam1
    """  # noqa: D301 -- click's mark for lines to keep
    from mqtt_mdi.engine.memory import share_one_heap  # noqa: PLC0415 -- slow to import
    from mqtt_mdi.engine.onnx import OnnxStage  # noqa: PLC0415 -- slow to import
    from mqtt_mdi.runtime.device import DeviceSettings  # noqa: PLC0415 -- slow to import
    from mqtt_mdi.runtime.source import SourceDevice  # noqa: PLC0415 -- slow to import

    share_one_heap()

    def load(graph: bytes, spec: StageSpec) -> OnnxStage:
        return OnnxStage(graph, spec, threads)

    settings = DeviceSettings(
        broker, pipeline, name or default_id("source"), stages, bundle, emulate, memory, model_key
    )
    wanted = tuple(part.strip() for part in sensors.split(",") if part.strip())
    if spool is None:
        shell = SourceDevice(settings, load, wanted)
    else:
        from mqtt_mdi.runtime.spooled import SpooledSource  # noqa: PLC0415 -- SQLAlchemy

        shell = SpooledSource(settings, load, wanted, spool)
    stop_on_signals(shell.stop)
    shell.serve()


@click.command(short_help="Stream sample pictures and count the answers.")
@broker_options
@click.option("--id", "name", envvar="MDI_ID", help="Name of this sensor.  [default: sensor-HOSTNAME]")
@bundle_option("Folder whose sample pictures are sent; the shipped one by default.", SHIPPED_BUNDLE)
@click.option(
    "--frames",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    envvar="MDI_FRAMES",
    help="How many frames to send; 0 for without end. The sample is repeated as needed.",
)
@click.option("--rate", type=FiniteRange(0, min_open=True), envvar="MDI_RATE", help="Frames a second.")
@click.option(
    "--window",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    envvar="MDI_WINDOW",
    help="Frames that may be without an answer.",
)
def sensor(
    broker: BrokerURL,
    pipeline: str,
    name: str | None,
    bundle: Path,
    frames: int,
    rate: float | None,
    window: int,
) -> None:
    """Stream the sample pictures as a camera would, with their truth, and count the answers."""
    from mqtt_mdi.cli.stream import stream_sample  # noqa: PLC0415 -- rich is slow to import
    from mqtt_mdi.runtime.sensor import SensorSettings  # noqa: PLC0415 -- slow to import

    name = name or default_id("sensor")
    settings = SensorSettings(broker, pipeline, name, frames or None, rate, window)
    tally = stream_sample(settings, bundle)
    lost = tally.sent - tally.answered - tally.failed
    accuracy = f", {100 * tally.correct / tally.graded:.2f}% right" if tally.graded else ""
    click.echo(
        f"{tally.sent} frames sent, {tally.answered} answered{accuracy}, {tally.failed} failed, "
        f"{tally.duplicates} doubled, {lost} without an answer"
    )
    if tally.failed or tally.duplicates or lost:
        raise SystemExit(1)
