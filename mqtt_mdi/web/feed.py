"""Asking the coordinator's thread, and one stream of what it says for all who watch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from mqtt_mdi.runtime.shell import Shell

T = TypeVar("T")

PERIOD_S = 0.4
PATIENCE_S = 5.0


async def ask(shell: Shell, function: Callable[[Callable[[T], None]], None]) -> T:
    """Have the shell's thread call `function` with a place for its answer, and wait for that.

    Raises TimeoutError when there is none in PATIENCE_S.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[T] = loop.create_future()

    def settle(value: T) -> None:
        if not answered.done():
            answered.set_result(value)

    shell.call(lambda: function(lambda value: _over(loop, lambda: settle(value))))
    return await asyncio.wait_for(answered, PATIENCE_S)


def _over(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call in a loop of another thread, unless it has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)


class Feed:
    """Server-sent events, made a few times a second while somebody watches.

    Each watcher has room for one: who reads slowly misses some and gets the newest.
    """

    def __init__(self, make: Callable[[], Awaitable[bytes]], most: int = 32) -> None:
        self._make = make
        self._most = most
        self._watchers: set[asyncio.Queue[bytes | None]] = set()
        self._work: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether there is no room for one more watcher."""
        return len(self._watchers) >= self._most

    async def events(self) -> AsyncIterator[bytes]:
        """What is made from now on, until `close`."""
        place: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._watchers.add(place)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._serve())
        try:
            while (event := await place.get()) is not None:
                yield event
        finally:
            self._watchers.discard(place)

    def close(self) -> None:
        """End all streams."""
        self._offer(None)
        if self._work is not None:
            self._work.cancel()

    def _offer(self, event: bytes | None) -> None:
        for place in self._watchers:
            if place.full():
                place.get_nowait()
            place.put_nowait(event)

    async def _serve(self) -> None:
        while self._watchers:
            try:
                self._offer(await self._make())
            except TimeoutError:
                self._offer(b"event: silent\ndata: the coordinator does not answer\n\n")
            await asyncio.sleep(PERIOD_S)
