"""`mqtt-mdi watch`: the answers of a pipeline as they come."""

from collections import Counter, deque
from collections.abc import Callable, Sequence

import click

from mqtt_mdi.cli.options import broker_options, stop_on_signals
from mqtt_mdi.cli.viewing import Viewer
from mqtt_mdi.core.coordinator import quantile
from mqtt_mdi.core.types import Result
from mqtt_mdi.reporting.text import one_line
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.wire.messages import RESULT
from mqtt_mdi.wire.topics import Topic, identifier

LATENCIES_KEPT = 10_000


class Watcher(Viewer):
    """Gives all answers of a turn at once to `show`, and ends after `count` of them."""

    def __init__(
        self,
        broker: BrokerURL,
        pipeline: str,
        sensors: Sequence[str],
        count: int | None,
        show: Callable[[Sequence[Result]], None],
    ) -> None:
        super().__init__(broker, pipeline, "watch")
        self.answered = 0
        self.failed = 0
        self.exits: Counter[int] = Counter()
        self.latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.first_at = self.last_at = 0.0
        self._sensors = [identifier(sensor, "--sensor") for sensor in sensors] or ["+"]
        self._count = count
        self._show = show
        self._news: list[Result] = []
        self._at_once = 0

    def connected(self) -> None:
        """Ask for answers."""
        for sensor in self._sensors:
            self.connection.subscribe(self.topics.results(sensor), qos=1)

    def received(self, message: Message, topic: Topic) -> None:
        """Hear an answer."""
        if topic.kind == "results":
            self._news.append(RESULT.decode(message.payload))

    def end_turn(self) -> None:
        """Count and show what has come."""
        news, self._news = self._news, []
        if self._count is not None:
            news = news[: self._count - self.answered - self.failed]
        if not news:
            return
        self.last_at = self.now()
        if not self.first_at:
            self.first_at, self._at_once = self.last_at, len(news)
        for result in news:
            if result.exit_stage is None:
                self.failed += 1
            else:
                self.answered += 1
                self.exits[result.exit_stage] += 1
                self.latencies_ms.append(result.latency_ms)
        self._show(news)
        if self.answered + self.failed == self._count:
            self.stop()

    def watch(self) -> None:
        """Show answers until stopped."""
        try:
            self.run()
        finally:
            self.connection.close()

    def summary(self) -> str:
        """All that was seen, in a line."""
        seconds = self.last_at - self.first_at
        parts = [f"{self.answered} answered", f"{self.failed} failed"]
        if seconds:
            parts.append(f"{(self.answered + self.failed - self._at_once) / seconds:.1f}/s")
        if self.exits:
            shares = (f"{stage}: {count / self.answered:.0%}" for stage, count in sorted(self.exits.items()))
            parts.append(f"left at exit {'  '.join(shares)}")
            median, high = (quantile(self.latencies_ms, share) for share in (0.5, 0.95))
            parts.append(f"latency p50 {median:.1f} ms, p95 {high:.1f} ms")
        if self.bad_messages:
            parts.append(f"{self.bad_messages} not understood")
        return ", ".join(parts)


def line(result: Result) -> str:
    """An answer in a line: sensor, frame, class, score, exit, device, latency, policy's version."""
    begin = f"{result.sensor:<10} {result.frame_id:<24}"
    version = f"v{result.policy_version}"
    if result.exit_stage is None:
        return click.style(
            f"{begin} failed: {one_line(result.reason or 'no reason given')}  {version}", "red"
        )
    name = one_line(result.class_name or f"class {result.label}")
    score = "" if result.score is None else f"{result.score:.3f}"
    return (
        f"{begin} {name:<14} {score:>6}  exit {result.exit_stage}  {result.device or '':<12} "
        f"{result.latency_ms:9.1f} ms  {version}"
    )


@click.command(short_help="Show answers as they come.")
@broker_options
@click.option("--sensor", "sensors", multiple=True, help="Of this sensor alone; may be given more than once.")
@click.option("--count", type=click.IntRange(1), help="End after so many answers.")
@click.option("--json", "as_json", is_flag=True, help="Print each answer as a line of JSON.")
def watch(
    broker: BrokerURL, pipeline: str, sensors: tuple[str, ...], count: int | None, as_json: bool
) -> None:
    """Show each answer of a pipeline as it comes, and how many there were at the end (Ctrl-C).

    What was answered before it began or while its connection is down is not shown: the database has all.

    \b
    Example:
      mqtt-mdi watch --broker mqtt://gateway --sensor cam1
      mqtt-mdi watch --json --count 1000 | jq .latency_ms
    """  # noqa: D301 -- click's mark for lines to keep
    one = (lambda result: RESULT.encode(result).decode()) if as_json else line
    watcher = Watcher(
        broker, pipeline, sensors, count, lambda news: click.echo("\n".join(one(result) for result in news))
    )
    stop_on_signals(watcher.stop)
    watcher.watch()
    click.echo(watcher.summary(), err=True)
