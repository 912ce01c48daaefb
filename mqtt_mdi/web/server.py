"""The page's own thread, in the process of the coordinator."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.coordinator import CoordinatorShell
from mqtt_mdi.runtime.tls import server_context
from mqtt_mdi.web.address import Address, PageSettings
from mqtt_mdi.web.app import Site
from mqtt_mdi.web.guard import Guard, token_for

log = logging.getLogger(__name__)

CONNECTIONS = 128
STOP_WITHIN_S = 2
REQUEST_WITHIN_S = 5.0


class _Protocol(H11Protocol):
    """HTTP with an end for connections on which no whole request comes: they would keep others out."""

    _hang_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hang_up = self.loop.call_later(REQUEST_WITHIN_S, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stay()
        elif self._hang_up is None:
            self._hang_up = self.loop.call_later(REQUEST_WITHIN_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stay()
        super().connection_lost(exc)

    def _stay(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None


class _Server(uvicorn.Server):
    """Ends the streams before it waits for connections to end."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._site.feed.close()
        await super().shutdown(sockets)


@contextmanager
def serving(shell: CoordinatorShell, settings: PageSettings) -> Iterator[str]:
    """Serve the page of a coordinator for as long as the context lasts; gives the address to open.

    Args:
        shell: The coordinator; it may be running or not, yet.
        settings: Where and how. The token has 16 characters or more; by default one is made where others
            reach the address, and none on loopback.

    Raises:
        ConfigError: The address cannot be listened on, the token could be guessed, or the files for TLS
            cannot be used.
    """
    address = settings.address
    assert address is not None
    token = token_for(address, settings.token)
    context = server_context(settings.cert, settings.key) if settings.tls else None
    if context is None and not address.is_loopback:
        log.warning("the page and its token travel in the clear: give --http-cert and --http-key for TLS")
    listener = _listen(address)
    address = replace(address, port=listener.getsockname()[1])
    site = Site(shell)
    app = Guard(site.app(), address, token, cookie=f"mdi-{shell.topics.pipeline}")
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    config.load()
    config.ssl = context
    server = _Server(config, site)
    thread = threading.Thread(target=_work, args=(server, listener), name="page", daemon=True)
    thread.start()
    try:
        yield address.url(token, tls=settings.tls)
    finally:
        server.should_exit = True
        thread.join()
        site.close()


def _work(server: uvicorn.Server, listener: socket.socket) -> None:
    with listener:
        asyncio.run(server.serve([listener]))


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--http cannot listen on {address.host}:{address.port}: {error}; "
            "stop what uses it or choose another"
        ) from error
