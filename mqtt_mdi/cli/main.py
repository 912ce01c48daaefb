"""`mqtt-mdi`: finds the command, loads that one alone, turns errors into exit codes."""

import logging
import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import click
from dotenv import load_dotenv

import mqtt_mdi
from mqtt_mdi.errors import BundleError, ConfigError, MdiError, ProtocolError, StorageError, out_of_memory

COMMANDS = {
    "demo": "mqtt_mdi.cli.demo:demo",
    "broker": "mqtt_mdi.cli.broker:broker",
    "coordinator": "mqtt_mdi.cli.services:coordinator",
    "source": "mqtt_mdi.cli.services:source",
    "device": "mqtt_mdi.cli.services:device",
    "sensor": "mqtt_mdi.cli.services:sensor",
    "policy": "mqtt_mdi.cli.policy:policy",
    "top": "mqtt_mdi.cli.top:top",
    "watch": "mqtt_mdi.cli.watch:watch",
    "report": "mqtt_mdi.cli.report:report",
    "home-assistant": "mqtt_mdi.cli.home_assistant:home_assistant",
    "certs": "mqtt_mdi.cli.certs:certs",
    "users": "mqtt_mdi.cli.users:users",
    "sign": "mqtt_mdi.cli.sign:sign",
    "simulate": "mqtt_mdi.cli.simulate:simulate",
    "experiment": "mqtt_mdi.cli.experiment:experiment",
    "train": "mqtt_mdi.cli.train:train",
    "split": "mqtt_mdi.cli.split:split",
    "bottleneck": "mqtt_mdi.cli.bottleneck:bottleneck",
    "convert": "mqtt_mdi.cli.convert:convert",
    "compare": "mqtt_mdi.cli.compare:compare",
    "inspect": "mqtt_mdi.cli.inspect:inspect",
}

SERVICES = {"coordinator", "source", "device", "home-assistant"}
"""These say what they do; the others show it."""

EXIT_CODES: dict[type[MdiError], int] = {ConfigError: 2, ProtocolError: 3, BundleError: 4, StorageError: 5}
INTERRUPTED = 130


class LazyGroup(click.Group):
    """Commands in the order of COMMANDS, each imported when it is asked for: a device starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


def load_plugins(_context: click.Context, _option: click.Parameter, names: str | None) -> None:
    """Import files or modules that register strategies, here and in the processes started from here."""
    for name in (names or "").split(","):
        if not name:
            continue
        try:
            if name.endswith(".py"):
                spec = spec_from_file_location(Path(name).stem, name)
                assert spec is not None
                assert spec.loader is not None
                spec.loader.exec_module(module_from_spec(spec))
            else:
                import_module(name)
        except Exception as error:  # whatever a stranger's file throws
            raise ConfigError(f"--plugin {name} cannot be imported: {error!r}") from error
    if names:
        os.environ["MDI_PLUGIN"] = names


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings can also stand in the environment or in a file .env, as MDI_ and the option's name: "
    "MDI_BROKER=mqtt://user:password@host:1883. Exit codes: 0 done, 1 not all was well, 2 wrong use or "
    "configuration, 3 bad bytes from a peer, 4 bad bundle, 5 database trouble, 130 interrupted.",
)
@click.version_option(mqtt_mdi.__version__, prog_name="mqtt-mdi")
@click.option("--debug", is_flag=True, envvar="MDI_DEBUG", help="Show tracebacks and say more.")
@click.option(
    "--plugin",
    envvar="MDI_PLUGIN",
    expose_value=False,
    is_eager=True,
    callback=load_plugins,
    help="Python files or modules, with commas between them, that register strategies of your own.",
)
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Run one multi-exit network on several small devices, over an ordinary MQTT broker.

    Start with `mqtt-mdi demo`: a broker, a coordinator, a source and three devices on this machine
    answer a thousand pictures. On real boards, run `coordinator` and `source` on one machine and
    `device` on each board, all with the same --broker.
    """
    level = logging.INFO if context.invoked_subcommand in SERVICES else logging.WARNING
    logging.basicConfig(
        level=logging.DEBUG if debug else level,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )


def _read_settings(file: Path) -> None:
    try:
        load_dotenv(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}; write NAME=value in each line, in UTF-8") from error


def main() -> None:
    """Run the command line; the entry point of `mqtt-mdi`."""
    try:
        _read_settings(Path(".env"))
        cli.main(prog_name="mqtt-mdi", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except MdiError as error:
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_CODES.get(type(error), 1))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error) or logging.getLogger().isEnabledFor(logging.DEBUG):
            raise
        said = (str(error).splitlines() or ["no room for more"])[0]
        click.echo(f"error: out of memory: {said}; give it less at once, or a machine with more", err=True)
        sys.exit(1)
