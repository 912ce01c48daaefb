"""`mqtt-mdi top`: a live table of a pipeline's devices and what they bring."""

import logging
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mqtt_mdi.cli.options import broker_options, stop_on_signals, timeout_option
from mqtt_mdi.cli.viewing import Viewer
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.reporting.text import one_line
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.wire.messages import (
    COORDINATOR_STATE,
    METRICS,
    POLICY,
    CoordinatorState,
    Metrics,
    state_of,
)
from mqtt_mdi.wire.topics import Topic

REDRAW_S = 0.5
RATE_OVER_S = 5.0
SETTLING_S = 1.5
"""A pipeline at work says all there is to say within this time."""

_HEADINGS = ("device", "role", "state", "stages", "in", "out", "run", "ms", "done/s", "bad", "policy", "age")
_LEFT = ("device", "role", "state", "stages")


@dataclass
class Seen:
    """What a device said last, when by our clock, and its work done by its own clock for the last seconds."""

    state: DeviceState
    at: float
    live: bool
    done: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def rate(self) -> float | None:
        """Tasks that a device completed, or frames that a source answered, a second."""
        if len(self.done) < 2:  # noqa: PLR2004 -- a rate lies between two counts
            return None
        (began, before), (ended, now) = self.done[0], self.done[-1]
        return (now - before) / (ended - began)


class Board(Viewer):
    """Keeps what a pipeline says of itself."""

    def __init__(self, broker: BrokerURL, pipeline: str) -> None:
        super().__init__(broker, pipeline, "top")
        self.devices: dict[str, Seen] = {}
        self.metrics: Metrics | None = None
        self.metrics_live = False
        self.coordinator: CoordinatorState | None = None
        self.policy: Policy | None = None
        self.connected_at: float | None = None

    def connected(self) -> None:
        """Ask for all there is; what was retained before may be gone by now."""
        self.connected_at = self.now()
        self.devices.clear()
        for topic in (self.topics.device(), self.topics.metrics, self.topics.coordinator, self.topics.policy):
            self.connection.subscribe(topic, qos=1)

    def received(self, message: Message, topic: Topic) -> None:
        """Hear a part of it."""
        match topic.kind:
            case "devices" if message.payload:
                self._hear(state_of(topic.name, message.payload), live=not message.retain)
            case "devices":
                self.devices.pop(topic.name, None)
            case "metrics" if message.payload:
                self.metrics, self.metrics_live = METRICS.decode(message.payload), not message.retain
            case "coordinator/state" if message.payload:
                self.coordinator = COORDINATOR_STATE.decode(message.payload)
            case "policy" if message.payload:
                self.policy = POLICY.decode(message.payload)

    def told_all(self) -> bool:
        """Whether everyone there has spoken since we listen, and rates are known."""
        if self.connected_at is None or self.now() < self.connected_at + SETTLING_S:
            return False
        waiting = self.coordinator is not None and self.coordinator.online and not self.metrics_live
        return not waiting and all(
            seen.rate is not None for seen in self.devices.values() if seen.state.online
        )

    def silent(self, seen: Seen) -> bool:
        """Whether a device that says it is online has not been heard for too long."""
        patience = self.policy.silence_s if self.policy else 3.0
        return seen.state.online and self.now() - seen.at > patience

    def _hear(self, state: DeviceState, *, live: bool) -> None:
        known = self.devices.get(state.device)
        seen = Seen(state, self.now(), live)
        if known is not None and known.state.boot == state.boot:
            seen.done = known.done
        if state.online:
            names = ("answered", "failed") if state.role == "source" else ("completed",)
            count = (state.stamp, sum(state.counters.get(name, 0) for name in names))
            if not seen.done or count[0] > seen.done[-1][0]:
                seen.done.append(count)
            while len(seen.done) > 2 and seen.done[-1][0] - seen.done[0][0] > RATE_OVER_S:  # noqa: PLR2004
                seen.done.popleft()
        else:
            seen.done.clear()
        self.devices[state.device] = seen


def draw(board: Board, trouble: str | None = None) -> Group:
    """The pipeline in a few lines, and a row for each device; `trouble` is the connection's last word."""
    link = Text("connected", "green")
    if not board.connection.connected:
        link = Text(f"NOT CONNECTED, trying again{f': {trouble}' if trouble else ''}", "bold red")
    lines = [Text.assemble((board.topics.pipeline, "bold"), f" on {board.connection.url}: ", link)]
    lines += [_coordinator(board.coordinator), _policy(board.policy)]
    lines += _figures(board)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in _LEFT else "right", no_wrap=True)
    for _, seen in sorted(board.devices.items()):
        table.add_row(*_row(board, seen))
    return Group(*lines, table if board.devices else Text("no devices"))


def _coordinator(state: CoordinatorState | None) -> Text:
    if state is None:
        return Text("coordinator: never seen", "yellow")
    text = Text("coordinator: ")
    text.append(*(("online", "green") if state.online else ("offline", "red")))
    if state.storage_error:
        text.append(f", cannot store: {one_line(state.storage_error)}", "red")
    if state.decision:
        text.append(f", {one_line(state.decision)}")
    return text


def _policy(policy: Policy | None) -> Text:
    if policy is None:
        return Text("policy: none", "yellow")
    thresholds = " ".join(f"{threshold:.4g}" for threshold in policy.thresholds) or "none"
    return Text(f"policy: version {policy.version}, strategy {policy.strategy}, thresholds {thresholds}")


def _figures(board: Board) -> list[Text]:
    bad = sum(seen.state.counters.get("bad_messages", 0) for seen in board.devices.values())
    letters = f"dead letters of devices and sources: {bad}"
    if (metrics := board.metrics) is None:
        return [Text(letters)]
    old = "" if board.coordinator is not None and board.coordinator.online else " (as last known)"
    accuracy = "unknown" if metrics.accuracy is None else f"{metrics.accuracy:.2%} of {metrics.graded}"
    latency = "unknown"
    if metrics.latency_p50_ms is not None and metrics.latency_p95_ms is not None:
        latency = f"p50 {metrics.latency_p50_ms:.1f} ms, p95 {metrics.latency_p95_ms:.1f} ms"
    total = sum(metrics.exits)
    exits = "  ".join(f"{k}: {count / total:.1%}" for k, count in enumerate(metrics.exits, 1) if total)
    return [
        Text(f"throughput: {metrics.throughput:.1f}/s  latency: {latency}  accuracy: {accuracy}{old}"),
        Text(f"answered: {metrics.answered}  failed: {metrics.failed}  doubled: {metrics.duplicates}"),
        Text(letters),
        Text(f"left at exit {exits or '-'}"),
    ]


def _row(board: Board, seen: Seen) -> list[Text]:
    state = seen.state
    words = ("online", "green") if state.online else ("gone", "red")
    if board.silent(seen):
        words = ("silent", "yellow")
    rate = seen.rate
    cells = [
        ",".join(map(str, state.stages)) or "-",
        str(state.input_queue),
        str(state.output_queue),
        str(state.running),
        f"{1000 * state.service_s:.2f}" if state.service_s else "-",
        "-" if rate is None else f"{rate:.1f}",
        str(state.counters.get("bad_messages", 0)),
        str(state.policy_version),
        f"{'' if seen.live else '>'}{board.now() - seen.at:.1f}s",
    ]
    return [Text(state.device), Text(state.role), Text(*words), *map(Text, cells)]


class LastWord(logging.Handler):
    """Keeps the last line of the log, which would tear a live table."""

    word: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.word = record.getMessage()


@contextmanager
def _quiet() -> Iterator[LastWord]:
    logger, handler = logging.getLogger("mqtt_mdi"), LastWord()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def look_once(board: Board, within_s: float) -> Group:
    """Listen until everyone has spoken, and draw; ConfigError when nobody speaks in time."""
    board.set_timer("once", board.now() + within_s, lambda _key: board.stop())
    try:
        while not board.stopping and not board.told_all():
            board.turn()
        drawn = draw(board)
    finally:
        board.connection.close()
    if board.connected_at is None:
        raise ConfigError(f"broker {board.connection.url} cannot be reached; is it running?")
    if not board.devices and board.coordinator is None:
        raise ConfigError(
            f"nobody of pipeline {board.topics.pipeline} was ever on {board.connection.url}; check --pipeline"
        )
    return drawn


def keep_looking(board: Board, console: Console) -> None:
    """Draw the table again and again until stopped."""
    drawn_at = 0.0
    try:
        with _quiet() as log, Live(console=console, screen=True, auto_refresh=False) as live:
            while not board.stopping:
                if board.now() >= drawn_at + REDRAW_S:
                    drawn_at = board.now()
                    live.update(draw(board, log.word), refresh=True)
                    board.set_timer("draw", drawn_at + REDRAW_S, lambda _key: None)
                board.turn()
    finally:
        board.connection.close()


@click.command(short_help="Show the devices of a running pipeline, live.")
@broker_options
@click.option("--once", is_flag=True, help="Print the table one time and end.")
@timeout_option("With --once, seconds to wait for devices and coordinator to speak.")
def top(broker: BrokerURL, pipeline: str, once: bool, timeout: float) -> None:
    """Show who is there, what they hold and how much they do; Ctrl-C ends it.

    "done/s" is by their own counters over the last 5 seconds: tasks that a device completed, frames that a
    source answered. "ms" is what a task takes, "bad" are messages that were not understood, "age" is how
    long ago the device spoke, ">" where it has not since the table began. The figures above the table
    are the coordinator's.

    \b
    Example:
      mqtt-mdi top --broker mqtt://gateway
      mqtt-mdi top --once | grep silent
    """  # noqa: D301 -- click's mark for lines to keep
    board = Board(broker, pipeline)
    if once:
        # a pipe has no width of its own, and its reader wants whole rows
        Console(width=None if sys.stdout.isatty() else 160).print(look_once(board, timeout))
    else:
        stop_on_signals(board.stop)
        keep_looking(board, Console())
