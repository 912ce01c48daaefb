"""Options that several commands share, and how their values are read."""

import signal
from collections.abc import Callable
from functools import wraps
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker_url import BrokerURL

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


class FiniteRange(click.FloatRange):
    """A finite number in a range; click's own lets nan pass, which is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 -- click's signature
        """Read a number."""
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


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


class BytesType(click.ParamType[int]):
    """`800000`, `800kB`, `1.5MiB`."""

    name = "bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number of bytes."""
        try:
            return int(_BYTES.validate_python(value))
        except ValidationError:
            self.fail(f"{value!r} is not a number of bytes like 800000, 800kB or 1.5MiB", param, ctx)


_BYTES = TypeAdapter(ByteSize)


def broker_options(command: F) -> F:
    """--broker with the files of its TLS, and --pipeline."""

    @wraps(command)
    def with_files(
        *, broker: BrokerURL, ca: Path | None, cert: Path | None, key: Path | None, **others: object
    ) -> object:
        return command(broker=broker.with_files(ca, cert, key), **others)

    for name, text in reversed(_TLS_FILES.items()):
        kind = click.Path(dir_okay=False, path_type=Path)
        with_files = click.option(f"--{name}", type=kind, envvar=f"MDI_{name.upper()}", help=text)(with_files)
    with_files = click.option(
        "--pipeline",
        default="demo",
        show_default=True,
        envvar="MDI_PIPELINE",
        help="Which pipeline; several may share a broker.",
    )(with_files)
    return click.option(
        "--broker",
        type=BrokerType(),
        default="mqtt://127.0.0.1:1883",
        show_default=True,
        envvar="MDI_BROKER",
        help="Where the broker is: mqtt://user:password@host:1883, or mqtts:// for TLS.",
    )(with_files)  # type: ignore[return-value]


_TLS_FILES = {
    "ca": "With mqtts://, certificate of the authority to trust.  [default: the system's]",
    "cert": "With mqtts://, our own certificate, for a broker that wants one.",
    "key": "Private key of --cert.",
}


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


def timeout_option(about: str) -> Callable[[F], F]:
    """`--timeout`, in seconds; `about` says what is waited for."""
    return click.option(
        "--timeout",
        type=FiniteRange(0),
        default=5.0,
        show_default=True,
        envvar="MDI_TIMEOUT",
        help=about,
    )


def new_folder(out: Path) -> None:
    """Make the folder of --out; raises ConfigError where it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".partial-", dir=out):
            pass  # hours later it would be too late to learn that nothing can be written there
    except OSError as error:
        raise ConfigError(f"cannot write to --out {out}: {error.strerror}") from error
