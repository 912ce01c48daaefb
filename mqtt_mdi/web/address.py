"""Where the page listens, whether others can reach it there, and how it is protected."""

import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from mqtt_mdi.errors import ConfigError

LOOPBACK = "127.0.0.1"
PORTS = 2**16


@dataclass(frozen=True)
class Address:
    """A host and a port to listen on; port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `:8080`, `0.0.0.0:8080` or `[::1]:8080`; without a host it is this machine only.

        Raises ConfigError for anything else.
        """
        host, colon, port = text.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if (
            not colon
            or not port.isascii()
            or not port.isdigit()
            or int(port) >= PORTS
            or set(host) & set("/@ ")
        ):
            raise ConfigError(
                f"--http {text!r} is no address to listen on: expected one like :8080 or 0.0.0.0:8080"
            )
        return cls(host or LOOPBACK, int(port))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it; a name is taken to be reached by others."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self, token: str | None = None, *, tls: bool = False) -> str:
        """What to type into a browser; of all interfaces, this machine's own."""
        host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.host, self.host)  # noqa: S104 -- compared
        query = "" if token is None else f"?token={token}"
        return f"http{'s' if tls else ''}://{Address(host, self.port)}/{query}"


@dataclass(frozen=True)
class PageSettings:
    """How the page is served, if it is.

    `token` is what it asks for; `cert` and `key` are the PEM files of a certificate for TLS and its key.
    """

    address: Address | None = None
    token: str | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def tls(self) -> bool:
        """Whether it is served with TLS."""
        return self.cert is not None or self.key is not None


def new_token() -> str:
    """192 random bits."""
    return secrets.token_urlsafe(24)
