"""A stretch of network between a client and the broker that can be cut, stalled, slowed and delayed."""

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK = 65_536


class Link:
    """Forwards every connection made to `port`, both ways."""

    def __init__(self, host: str, to_port: int) -> None:
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self._to = (host, to_port)
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()
        self._flows.set()

    def cut(self) -> None:
        """End every connection and take no new one."""
        self._is_cut = True
        for end in list(self._open):
            _close(end)

    def stall(self) -> None:
        """Let nothing through, and tell nobody."""
        self._flows.clear()

    def heal(self) -> None:
        """Be a good network again."""
        self._is_cut = False
        self.delay_s, self.bytes_per_s = 0.0, None
        self._flows.set()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._to)
                except OSError:
                    _close(near)
                    continue
                if self._is_cut:
                    _close(near)
                    _close(far)
                    continue
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._open.add(end)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # either end went away
            while data := source.recv(CHUNK):
                time.sleep(self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0))
                self._flows.wait()
                sink.sendall(data)
        for end in (source, sink):
            self._open.discard(end)
            _close(end)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
