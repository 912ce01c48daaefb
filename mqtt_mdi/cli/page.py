"""The options of the page, for the commands that have one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.web.address import Address, PageSettings

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
    """--http and what belongs to it, as `page`; `default` is what --http says when it is not given."""

    def add(command: F) -> F:
        @wraps(command)
        def with_page(
            *,
            http: Address | None,
            http_token: str | None,
            http_cert: Path | None,
            http_key: Path | None,
            **others: object,
        ) -> object:
            return command(page=PageSettings(http, http_token, http_cert, http_key), **others)

        for name, (kind, text) in reversed(_OPTIONS.items()):
            variable = "MDI_" + name.upper().replace("-", "_")
            with_page = click.option(f"--{name}", type=kind, envvar=variable, help=text)(with_page)
        return click.option(
            "--http",
            type=AddressType(),
            envvar="MDI_HTTP",
            help="Serve the page here, like :8080 or, for other machines too, 0.0.0.0:8080.  "
            f"[default: {default}]",
        )(with_page)  # type: ignore[return-value]

    return add


_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS: dict[str, tuple[click.ParamType[Any] | None, str]] = {
    "http-token": (
        None,
        (
            "What the page asks for, 16 characters or more.  [default: nothing on this machine, a new one at "
            "each start elsewhere]"
        ),
    ),
    "http-cert": (_FILE, "Certificate to serve the page with TLS, as `mqtt-mdi certs` makes it."),
    "http-key": (_FILE, "Private key of --http-cert."),
}


def page_installed() -> bool:
    """Whether what the page needs is there."""
    return all(find_spec(name) is not None for name in ("prometheus_client", "starlette", "uvicorn"))


@contextmanager
def showing(shell: "CoordinatorShell", page: PageSettings) -> Iterator[None]:
    """Serve the page, if it is wanted, for as long as the context lasts, and say where.

    Raises ConfigError when what it needs is not installed.
    """
    if page.address is None:
        yield
        return
    if not page_installed():
        raise ConfigError("--http needs the page's extra: pip install 'mqtt-mdi[page]'")
    from mqtt_mdi.web.server import serving  # noqa: PLC0415 -- an extra, and slow to import

    with serving(shell, page) as url:
        click.echo(f"the page is on {url}", err=True)
        yield
