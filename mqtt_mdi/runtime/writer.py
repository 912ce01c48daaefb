"""The coordinator's second thread: the one writer of the database."""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from mqtt_mdi.errors import StorageError
from mqtt_mdi.storage.store import Batch, Store, Written

log = logging.getLogger(__name__)

RETRY_S = (0.2, 5.0)


class Writer:
    """Writes one batch at a time, again and again until the database takes it.

    `written` and `failing` are called in the writer's thread.
    """

    def __init__(
        self, store: Store, written: Callable[[Written], None], failing: Callable[[str], None]
    ) -> None:
        self._store = store
        self._written = written
        self._failing = failing
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def write(self, batch: Batch) -> None:
        """Write a batch after those before it."""
        self._batches.put(batch)

    def stop(self) -> None:
        """Write what is at hand, once; end."""
        self._stopping.set()
        self._batches.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            self._insist(batch)

    def _insist(self, batch: Batch) -> None:
        pause = RETRY_S[0]
        while True:
            try:
                written = self._store.write(batch)
            except Exception as error:
                # Whatever a database throws: a writer that ended would store nothing more, and say nothing.
                if not isinstance(error, StorageError):
                    log.exception("writing to the database")
                self._failing(str(error))
                if self._stopping.wait(pause):
                    return
                pause = min(RETRY_S[1], 2 * pause)
            else:
                self._written(written)
                return
