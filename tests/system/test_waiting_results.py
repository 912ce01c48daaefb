"""What Mosquitto keeps for a coordinator that stands still, and when it drops: what operations.md says."""

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from chaos.proxy import Link
from live import Broker, Pipeline, until
from secured import mosquitto_with

from mqtt_mdi.core.types import Result
from mqtt_mdi.runtime.broker import free_ports, mosquitto_program
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.wire.messages import RESULT

HOST = "127.0.0.1"
LIMIT = 500
OUTAGE = 400
OTHERS = 50
"""More messages than a pipeline has that are no results: states, policy, model."""

HELD, DROPPED = "$SYS/broker/store/messages/count", "$SYS/broker/publish/messages/dropped"
CONFIGURATION = f"""\
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages {LIMIT}
sys_interval 1
persistence false
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Broker]:
    """A Mosquitto with a low limit, which tells every second what it holds and has dropped."""
    if mosquitto_program() is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    port = free_ports(HOST, 1)
    with mosquitto_with(f"listener {port} {HOST}\n{CONFIGURATION}", tmp_path, port):
        yield Broker("mosquitto", BrokerURL(HOST, port))


class Outages:
    """A coordinator whose network is cut and which is frozen while results gather."""

    def __init__(self, pipeline: Pipeline, link: Link) -> None:
        self.pipeline = pipeline
        self.link = link
        self.published = 0
        pipeline.client.subscribe(HELD, DROPPED)
        self.coordinator = pipeline.coordinator("--broker", f"mqtt://{HOST}:{link.port}").process

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Without a connection, so that nothing that was stored meanwhile can be acknowledged."""
        state = self.pipeline.topics.coordinator
        self.coordinator.send_signal(signal.SIGSTOP)
        try:
            self.link.cut()
            self.pipeline.client.wait_for_last(state, lambda said: not said["online"])
            yield
        finally:
            self.link.heal()
            self.coordinator.send_signal(signal.SIGCONT)
        self.pipeline.client.wait_for_last(state, lambda said: said["online"])

    def publish(self, count: int) -> None:
        """Results of frames that nobody has heard of yet."""
        first, self.published = self.published, self.published + count
        self.pipeline.client.flood(
            self.pipeline.topics.results("cam"),
            (
                RESULT.encode(Result("cam", str(number), "ok", label=1, score=0.9))
                for number in range(first, self.published)
            ),
        )

    def told(self, topic: str) -> int:
        """The broker's latest figure."""
        heard = self.pipeline.client.last(topic)
        return int(heard.payload) if heard else 0

    def wait_for_held(self, wanted: Callable[[int], bool]) -> None:
        until(lambda: wanted(self.told(HELD)), lambda: f"the broker holds {self.told(HELD)}")

    def wait_for_rows(self, count: int) -> None:
        until(lambda: self.rows() >= count, lambda: f"{self.rows()} rows")

    def rows(self) -> int:
        with closing(sqlite3.connect(self.pipeline.database)) as connection:
            count: int = connection.execute("SELECT count(*) FROM results").fetchone()[0]
            return count


@pytest.fixture
def outages(small: Broker, tmp_path: Path) -> Iterator[Outages]:
    with Link(HOST, small.url.port) as link, Pipeline(small, "waiting", tmp_path) as pipeline:
        yield Outages(pipeline, link)


def test_outages_within_the_limit_lose_nothing(outages: Outages) -> None:
    for turn in range(1, 4):
        with outages.outage():
            outages.publish(OUTAGE)
            outages.wait_for_held(lambda held: held >= OUTAGE)
        outages.wait_for_rows(turn * OUTAGE)
        # Stored is not enough: what is not acknowledged, too, takes up the broker's room.
        outages.wait_for_held(lambda held: held < OUTAGE - OTHERS)
    assert (outages.rows(), outages.told(DROPPED)) == (outages.published, 0)


def test_what_exceeds_the_limit_is_counted_as_dropped(outages: Outages) -> None:
    with outages.outage():
        outages.publish(LIMIT + 100)
        until(lambda: outages.told(DROPPED) >= 100, lambda: outages.told(DROPPED))
    until(lambda: outages.rows() + outages.told(DROPPED) >= outages.published, outages.rows)
    # The coordinator's last will, and perhaps more of its own, waits among the results.
    assert LIMIT - OTHERS <= outages.rows() <= LIMIT
    assert outages.rows() + outages.told(DROPPED) == outages.published
