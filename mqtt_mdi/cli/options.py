"""Options that several commands share, and how their values are read."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from mqtt_mdi.runtime.client import BrokerURL

F = TypeVar("F", bound=Callable[..., Any])


class BrokerType(click.ParamType[BrokerURL]):
    """`mqtt://user:password@host:1883`."""

    name = "url"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002 -- click's signature
        ctx: click.Context | None,  # noqa: ARG002 -- click's signature
    ) -> BrokerURL:
        """Read a broker's address."""
        return value if isinstance(value, BrokerURL) else BrokerURL.parse(str(value))


class StagesType(click.ParamType[frozenset[int] | Literal["all"]]):
    """`1,2`, `all` or `none`."""

    name = "stages"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[int] | Literal["all"]:
        """Read a set of stages."""
        if isinstance(value, frozenset) or value == "all":
            return value
        if value == "none":
            return frozenset()
        try:
            stages = frozenset(int(part) for part in str(value).split(","))
        except ValueError:
            stages = frozenset({0})
        if min(stages) < 1:
            self.fail(f"{value!r} is not 'all', 'none' or numbers from 1 like '1,2'", param, ctx)
        return stages


def broker_options(command: F) -> F:
    """--broker and --pipeline."""
    command = click.option(
        "--pipeline",
        default="demo",
        show_default=True,
        envvar="MDI_PIPELINE",
        help="Which pipeline; several may share a broker.",
    )(command)
    return click.option(
        "--broker",
        type=BrokerType(),
        default="mqtt://127.0.0.1:1883",
        show_default=True,
        envvar="MDI_BROKER",
        help="Where the broker is: mqtt://user:password@host:1883, or mqtts:// for TLS.",
    )(command)


def bundle_option(text: str, default: Path | None = None) -> Callable[[F], F]:
    """--bundle, with what it is for."""
    return click.option(
        "--bundle",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        envvar="MDI_BUNDLE",
        help=text,
    )


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Let SIGTERM and SIGINT end a service in good order."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop())
