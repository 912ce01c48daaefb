"""Where a broker is and who we are to it, as `mqtts://user:password@host:8883` says."""

from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from mqtt_mdi.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BrokerURL:
    """Where the broker is, who we are to it, and with TLS the PEM files that prove it."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "BrokerURL":
        """Read `mqtt://user:password@host:1883` (or `mqtts://`, port 8883)."""
        try:
            parts = urlsplit(text if "//" in text else f"mqtt://{text}")
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"broker {text!r}: {error}; expected mqtt://user:password@host:1883") from error
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ConfigError(f"broker {text!r}: expected mqtt://user:password@host:1883 or mqtts://...")
        tls = parts.scheme == "mqtts"
        return cls(
            parts.hostname,
            port or (8883 if tls else 1883),
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
            tls,
        )

    def with_files(self, ca: Path | None, cert: Path | None, key: Path | None) -> "BrokerURL":
        """The same broker with files for TLS; ConfigError when there is no TLS to use them."""
        if not self.tls and (ca or cert or key):
            raise ConfigError(f"broker {self}: --ca, --cert and --key are for TLS; write mqtts://")
        return replace(self, ca=ca, cert=cert, key=key)

    def with_password(self) -> str:
        """The whole URL, as `parse` reads it; for nobody's eyes."""
        user = "" if self.username is None else quote(self.username, safe="")
        if self.password is not None:
            user += ":" + quote(self.password, safe="")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{user}{'@' if user else ''}{host}:{self.port}"

    def __str__(self) -> str:
        """The address without the password."""
        user = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{user}{host}:{self.port}"
