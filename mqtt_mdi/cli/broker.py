"""`mqtt-mdi broker`: a broker in the foreground."""

import threading

import click

from mqtt_mdi.cli.options import stop_on_signals
from mqtt_mdi.runtime.broker import choose, running_broker


@click.command(short_help="Run a broker, for trying things out.")
@click.option(
    "--kind",
    type=click.Choice(["auto", "mosquitto", "embedded"]),
    default="auto",
    show_default=True,
    envvar="MDI_BROKER_KIND",
    help="auto takes mosquitto when it is on PATH.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=1883,
    show_default=True,
    envvar="MDI_PORT",
    help="Port to listen on; the embedded broker takes the next one, too, for MQTT 3.1.1.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="MDI_HOST",
    help="Address to listen on; 0.0.0.0 lets in the whole network, without passwords.",
)
def broker(kind: str, port: int, host: str) -> None:
    """Run a broker with settings that fit, for trying things out.

    For keeps, run Mosquitto with the configuration in the project's broker/ folder.
    """
    stopped = threading.Event()
    stop_on_signals(stopped.set)
    chosen = choose(kind)
    with running_broker(chosen, port, host) as url:
        click.echo(f"{chosen} listens on {url}; stop it with Ctrl-C")
        if chosen == "embedded":
            click.echo(f"clients of MQTT 3.1.1 connect to port {port + 1}")
        stopped.wait()
