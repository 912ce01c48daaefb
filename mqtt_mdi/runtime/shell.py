"""One thread that owns a connection and its machines: messages, calls from other threads, timers."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from queue import Empty, SimpleQueue

from mqtt_mdi.errors import MdiError, ProtocolError
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.wire.messages import DEAD_LETTER, MAX_FIRST_BYTES, DeadLetter
from mqtt_mdi.wire.topics import PREFIX, Topic, Topics

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 1.0
CALLS_A_TURN = 16
"""What was called for in a turn goes out together; more would keep the network waiting."""


def new_boot() -> str:
    """A name for this start of a process; later starts sort after earlier ones."""
    return f"{time.time_ns() // 1_000_000:x}-{secrets.token_hex(3)}"


class Shell:
    """The loop that every process of the service runs. Subclasses hear messages and carry out effects."""

    def __init__(self, name: str, topics: Topics, connection: Connection) -> None:
        self.name = name
        self.topics = topics
        self.connection = connection
        self.bad_messages = 0
        self.stopping = False
        self.fault: MdiError | None = None
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._timers: list[tuple[float, int, str]] = []
        self._due: dict[str, tuple[float, int, Callable[[str], None]]] = {}
        self._serial = 0
        self._thread = 0
        connection.on_connected = self.connected

    def connected(self) -> None:
        """The connection is up, at first or again: subscribe, and say what must be said anew."""

    def received(self, message: Message, topic: Topic) -> None:
        """A message of this pipeline arrived; ProtocolError makes it a dead letter."""

    def skipped(self, message: Message) -> None:
        """A message came on a topic that is none of the protocol's, and is a dead letter by now."""

    def outside(self, message: Message) -> bool:  # noqa: ARG002 -- for subclasses
        """A message came on a topic that is none of the pipeline's: True when it was expected."""
        return False

    def end_turn(self) -> None:
        """Everything at hand has been taken in: send what has gathered."""

    def now(self) -> float:
        """Seconds on this process's own clock."""
        return time.monotonic()

    def call(self, function: Callable[[], None]) -> None:
        """Have the loop's thread call `function`; from any thread."""
        self._calls.put(function)
        if threading.get_ident() != self._thread:
            self.connection.wake()

    def stop(self) -> None:
        """End `run` after this turn; from any thread or a signal handler."""
        self.stopping = True
        self.connection.wake()

    def fail(self, fault: MdiError) -> None:
        """End `run` with an error: going on would serve nobody."""
        self.fault = fault

    def set_timer(self, key: str, at: float, fired: Callable[[str], None]) -> None:
        """Call `fired(key)` at time `at`, instead of at any earlier time set for `key`."""
        self._serial += 1
        self._due[key] = (at, self._serial, fired)
        heappush(self._timers, (at, self._serial, key))

    def run(self) -> None:
        """Serve until `stop`; raises ConfigError when the broker refuses us for good."""
        while not self.stopping:
            self.turn()
            if self.fault is not None:
                raise self.fault

    def turn(self) -> None:
        """Wait for news, take in all there is, send what came of it."""
        self._thread = threading.get_ident()
        wait = LONGEST_WAIT_S
        if not self._calls.empty():
            wait = 0.0
        elif self._timers:
            wait = min(wait, max(0.0, self._timers[0][0] - self.now()))
        for message in self.connection.poll(wait):
            self._take(message)
        self._run_calls()
        self._fire_timers()
        self.end_turn()

    def dead_letter(self, topic: str, payload: bytes, reason: str) -> None:
        """Count and report bytes that could not be understood, showing just how they begin."""
        self.bad_messages += 1
        log.warning("bad message on %s: %s", topic[:200], reason[:500])
        letter = DeadLetter(
            self.name, topic[:1024], reason[:500], payload[:MAX_FIRST_BYTES].hex(), len(payload)
        )
        self.connection.publish(self.topics.deadletter(self.name), DEAD_LETTER.encode(letter), qos=1)

    def respond(self, topic: str, payload: bytes, correlation: bytes | None, theirs: str) -> None:
        """Publish an answer where a client asked for it, unless nobody may publish there.

        Of the protocol's topics that is `theirs` alone: otherwise any client could have us, who may write
        more than it may, speak on the others for it.
        """
        if not topic or set(topic) & {"#", "+", "\0"}:
            return
        if topic == theirs or not topic.startswith(f"{PREFIX}/"):
            self.connection.publish(topic, payload, qos=1, correlation=correlation)

    def _take(self, message: Message) -> None:
        try:
            topic = self.topics.parse(message.topic)
        except ProtocolError as error:
            if self.outside(message):
                return
            self.dead_letter(message.topic, message.payload, str(error))
            self.skipped(message)
            return
        try:
            self.received(message, topic)
        except ProtocolError as error:
            self.dead_letter(message.topic, message.payload, str(error))
        except Exception as error:
            # A fault of ours, met on some message: it must not take the process and its frames along.
            log.exception("message on %s", message.topic)
            self.dead_letter(message.topic, message.payload, f"internal error: {error!r}")

    def _run_calls(self) -> None:
        for _ in range(CALLS_A_TURN):
            try:
                function = self._calls.get_nowait()
            except Empty:
                return
            _outlive(function)

    def _fire_timers(self) -> None:
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            _, serial, key = heappop(self._timers)
            due = self._due.get(key)
            if due is not None and due[1] == serial:
                del self._due[key]
                _outlive(partial(due[2], key))


def _outlive(function: Callable[[], None]) -> None:
    """Call a function of ours whose fault must not take the process and its frames along."""
    try:
        function()
    except Exception:
        log.exception("a fault of mqtt-mdi itself, please report it")
