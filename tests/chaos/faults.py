"""The table of faults: how each is made, and what may come of it."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from paho.mqtt import client as paho

from chaos.traffic import WINDOW, Books, Station, Traffic, hears_nothing
from chaos.world import DEVICES, SOURCE, TOPICS, World, frozen

OUTAGE_S = 1.5
"""How long what is frozen or cut stays so: less than a neighbour's silence is noticed after."""

LONG_OUTAGE_S = 4.0
"""More than `silence_s` and the first lease."""

CAPACITY_OVERLOAD = 5
SLOW_BOARD = 2.5e7
"""Multiply-adds a second at which three devices are soon too slow."""

DAY_S = 86_400.0
MAY_GROW = 32 * 2**20
"""Bytes that a process may grow by under overload: its queues fill, then nothing more comes on top."""


@dataclass(frozen=True)
class Fault:
    """One row. `strike` is called while frames flow; it raises AssertionError when it saw something wrong.

    `copies` says that a connection of the sensor, the source or the broker breaks, so that a frame or a
    result may come again; `forgets` that the broker loses what it has acknowledged, so that the sensor must send again;
    `rate` makes the sensor send whatever comes back, at so many times what the devices can do.
    """

    name: str
    strike: Callable[["Run"], None]
    copies: bool = False
    forgets: bool = False
    persistence: bool = False
    behind_link: str | None = None
    emulate: float | None = None
    overload: int | None = None


@dataclass
class Run:
    """A fault at work."""

    world: World
    traffic: Traffic
    frames: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What a row shows; `wrong` is empty when it passed."""

    fault: Fault
    books: Books
    stored: int
    seconds: float
    wrong: list[str]
    notes: list[str]

    @property
    def doubled(self) -> int:
        """Frames with two different results, or with a copy that nothing explains."""
        unexplained = 0 if self.fault.copies else self.books.repeated
        return self.books.contradicted + unexplained


def run(fault: Fault, frames: int) -> Outcome:
    """Bring the world up, let frames flow, strike, count."""
    began = time.monotonic()
    with World(persistence=fault.persistence, behind_link=fault.behind_link, emulate=fault.emulate) as world:
        link = world.link.port if fault.behind_link == "sensor" else None
        with Traffic(world.port, TOPICS, link=link, again=fault.forgets) as traffic:
            work = Run(world, traffic, frames)
            wrong: list[str] = []
            try:
                if not fault.overload:
                    traffic.begin(frames)
                fault.strike(work)
            except AssertionError as error:
                wrong.append(str(error) + world.logs())
            books = traffic.finish()
            outcome = Outcome(fault, books, world.stored(books), time.monotonic() - began, wrong, work.notes)
    if books.lost:
        wrong.append(f"lost: {sorted(books.lost)[:5]}")
    if outcome.doubled:
        wrong.append(f"doubled: {books.contradicted} contradict, {books.repeated} repeated")
    if books.failed:
        wrong.append(f"failed: {books.failed.most_common(2)}")
    if len(books.acknowledged) < frames:
        wrong.append(f"the broker took {len(books.acknowledged)} of {frames} frames")
    if outcome.stored < len(books.results):
        wrong.append(f"{len(books.results) - outcome.stored} results are not in the database")
    if books.refused and not fault.overload:
        wrong.append(f"refused: {len(books.refused)}")
    return outcome


def each_device_killed(work: Run) -> None:
    for place, name in enumerate(DEVICES, 1):
        work.traffic.until_told(place / 5)
        work.world.restart(name)


def source_killed(work: Run) -> None:
    for share in (0.2, 0.4, 0.6):
        work.traffic.until_told(share)
        work.world.restart(SOURCE)


def coordinator_killed(work: Run) -> None:
    for share in (0.2, 0.5):
        work.traffic.until_told(share)
        work.world.restart("coordinator")


def broker_killed(work: Run) -> None:
    for share in (0.2, 0.5):
        work.traffic.until_told(share)
        work.world.restart_broker()


def device_frozen(work: Run) -> None:
    for share, seconds in ((0.2, OUTAGE_S), (0.5, LONG_OUTAGE_S)):
        work.traffic.until_told(share)
        with frozen(work.world, "device-3"):
            time.sleep(seconds)


def link_cut(work: Run) -> None:
    for share, seconds in ((0.2, OUTAGE_S), (0.5, LONG_OUTAGE_S)):
        work.traffic.until_told(share)
        work.world.link.cut()
        time.sleep(seconds)
        work.world.link.heal()


def link_stalled(work: Run) -> None:
    for share, seconds in ((0.2, OUTAGE_S), (0.5, LONG_OUTAGE_S)):
        work.traffic.until_told(share)
        work.world.link.stall()
        time.sleep(seconds)
        work.world.link.heal()


def link_slow(work: Run) -> None:
    work.traffic.until_told(0.2)
    work.world.link.delay_s = 0.1
    work.traffic.until_told(0.5)
    work.world.link.bytes_per_s = 100_000
    work.traffic.until_told(0.8)
    work.world.link.heal()


@contextmanager
def meddler(port: int) -> Iterator[list[int]]:
    """Publishes every task and every outcome again, up to twice, late and in another order."""
    chance = random.Random(1)
    count = [0]

    def again(message: paho.MQTTMessage) -> None:
        for _ in range(chance.randint(1, 2)):
            late = threading.Timer(
                chance.uniform(0.0, 0.5), mixer.client.publish, (message.topic, message.payload, 1)
            )
            late.daemon = True
            late.start()
            count[0] += 1

    mixer = Station(port, (f"{TOPICS.root}/stage/+/+", f"{TOPICS.root}/exits/+"), again, own=False)
    with mixer:
        yield count


def messages_meddled_with(work: Run) -> None:
    work.traffic.until_told(0.1)
    with meddler(work.world.port) as count:
        work.traffic.until_told(0.9)
    work.notes.append(f"{count[0]} copies of tasks and outcomes")


def deaf_subscriber(work: Run) -> None:
    work.traffic.until_told(0.1)
    deaf = hears_nothing(work.world.port, f"{TOPICS.root}/#")
    work.traffic.until_told(1.0)
    deaf.disconnect()


def clock_jumps(work: Run) -> None:
    for share, days in ((0.2, 1), (0.4, -1), (0.6, 400)):
        work.traffic.until_told(share)
        work.world.clock.write_text(str(days * DAY_S))
    for name in ("device-2", "coordinator", SOURCE):
        work.world.restart(name)
        work.world.clock.write_text(str(-DAY_S))


def overload(work: Run) -> None:
    measured = max(WINDOW, work.frames // 20)
    began = time.monotonic()
    work.traffic.begin(measured)
    work.traffic.until_told(1.0)
    capacity = measured / (time.monotonic() - began)
    rate = CAPACITY_OVERLOAD * capacity
    work.traffic.begin(work.frames - measured, rate)
    work.traffic.until_told(0.6)
    before = work.world.memory()
    work.traffic.until_told(0.95)
    after = work.world.memory()
    books = work.traffic.finish()
    grew = {name: after[name] - before[name] for name in after}
    window = work.world.said[TOPICS.policy]["window"]
    slowest = sorted(told[0]["latency_ms"] for told in books.results.values())
    p95 = slowest[int(0.95 * len(slowest))] / 1000
    work.notes.append(
        f"{capacity:.0f} frames/s, sent {rate:.0f}; p95 {p95:.2f} s where window/rate is "
        f"{window / capacity:.2f} s; memory grew by {max(grew.values()) / 2**20:.1f} MiB at most"
    )
    assert books.refused, "nothing was refused"
    assert max(grew.values()) < MAY_GROW, f"memory grew: {grew}"
    assert p95 < 3 * window / capacity, f"p95 of {p95:.2f} s with a window of {window} at {capacity:.0f}/s"


FAULTS = (
    Fault("each device killed in turn", each_device_killed),
    Fault("source killed thrice, with spool", source_killed, copies=True),
    Fault("coordinator killed twice", coordinator_killed),
    Fault(
        "broker killed twice, with persistence", broker_killed, copies=True, forgets=True, persistence=True
    ),
    Fault("broker killed twice, without", broker_killed, copies=True, forgets=True),
    Fault("device frozen, 1.5 s and 4 s", device_frozen),
    Fault("device cut off, 1.5 s and 4 s", link_cut, behind_link="device-3"),
    Fault("device's link stalls, 1.5 s and 4 s", link_stalled, behind_link="device-3"),
    Fault("device's link slow, then narrow", link_slow, behind_link="device-3"),
    Fault("source cut off, 1.5 s and 4 s", link_cut, behind_link=SOURCE, copies=True),
    Fault("sensor cut off, 1.5 s and 4 s", link_cut, behind_link="sensor", copies=True),
    Fault("tasks and outcomes doubled, late, mixed", messages_meddled_with),
    Fault("a subscriber that never reads", deaf_subscriber),
    Fault("wall clock jumps while parts restart", clock_jumps, copies=True),
    Fault("overload, five times the capacity", overload, emulate=SLOW_BOARD, overload=CAPACITY_OVERLOAD),
)
