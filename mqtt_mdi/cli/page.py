"""The options of the page, for the commands that have one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.web.address import Address

if TYPE_CHECKING:
    from mqtt_mdi.runtime.coordinator import (
        CoordinatorShell,
    )  # a device loads this file too, and no SQLAlchemy

F = TypeVar("F", bound=Callable[..., Any])


class AddressType(click.ParamType[Address]):
    """`:8080`, `0.0.0.0:8080`."""

    name = "[host]:port"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002 -- click's signature
        ctx: click.Context | None,  # noqa: ARG002 -- click's signature
    ) -> Address:
        """Read an address to listen on."""
        return value if isinstance(value, Address) else Address.parse(str(value))


def page_options(default: str) -> Callable[[F], F]:
    """--http and --http-token; `default` is what --http says when it is not given."""

    def add(command: F) -> F:
        with_token = click.option(
            "--http-token",
            envvar="MDI_HTTP_TOKEN",
            help="What the page asks for, 16 characters or more.  [default: nothing on this machine, a new "
            "one at each start elsewhere]",
        )(command)
        return click.option(
            "--http",
            "page",
            type=AddressType(),
            envvar="MDI_HTTP",
            help="Serve the page here, like :8080 or, for other machines too, 0.0.0.0:8080.  "
            f"[default: {default}]",
        )(with_token)

    return add


def page_installed() -> bool:
    """Whether what the page needs is there."""
    return all(find_spec(name) is not None for name in ("prometheus_client", "starlette", "uvicorn"))


@contextmanager
def showing(shell: "CoordinatorShell", page: Address | None, token: str | None) -> Iterator[None]:
    """Serve the page, if it is wanted, for as long as the context lasts, and say where.

    Raises ConfigError when what it needs is not installed.
    """
    if page is None:
        yield
        return
    if not page_installed():
        raise ConfigError("--http needs the page's extra: pip install 'mqtt-mdi[page]'")
    from mqtt_mdi.web.server import serving  # noqa: PLC0415 -- an extra, and slow to import

    with serving(shell, page, token) as url:
        click.echo(f"the page is on {url}", err=True)
        yield
