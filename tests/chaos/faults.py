"""The table of faults: how each is made, and what may come of it."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from live import until
from paho.mqtt import client as paho

from chaos.proxy import Link
from chaos.traffic import Books, Station, Traffic, hears_nothing
from chaos.world import DEVICES, SENSOR, SOURCE, TOPICS, World, frozen

OUTAGE_S = 1.5
"""How long what is frozen or cut stays so: less than a neighbour's silence is noticed after."""

LONG_OUTAGE_S = 4.0
"""More than `silence_s` and the first lease."""

OVERLOAD = 5
SLOW_BOARD = 1.5e8
"""Multiply-adds a second at which three devices are soon too slow, and this machine is not."""

DAY_S = 86_400.0
MAY_GROW_MIB = 8
"""What a process may grow by once its queues are full: nothing more comes on top."""


@dataclass(frozen=True)
class Fault:
    """One row. `strike` is called while frames flow; it raises AssertionError when it saw something wrong.

    `copies` says that a connection of the sensor, the source or the broker breaks, so that a frame or a
    result may come again; `forgets` that the broker loses what it has acknowledged, so that the sensor
    must send again. Where there is an `overload` the strike itself lets frames flow, and some are refused.
    """

    name: str
    strike: Callable[["Run"], None]
    copies: bool = False
    forgets: bool = False
    persistence: bool = False
    behind_link: str | None = None
    emulate: float | None = None
    overload: bool = False


@dataclass
class Run:
    """A fault at work; a `short` one strikes once and not for long."""

    fault: Fault
    world: World
    traffic: Traffic
    frames: int
    short: bool
    notes: list[str] = field(default_factory=list)

    def times(self, *shares: float) -> Iterator[None]:
        """Come to each share of the frames, or just to the first."""
        for share in shares[: 1 if self.short else None]:
            self.traffic.until_told(share)
            yield

    def outages(self) -> Iterator[float]:
        """Come to where something is to be away for so many seconds."""
        lengths = iter((OUTAGE_S, LONG_OUTAGE_S))
        for _ in self.times(0.2, 0.5):
            yield next(lengths)

    @property
    def link(self) -> Link:
        """The stretch of network that is struck."""
        assert self.fault.behind_link is not None
        return self.world.links[self.fault.behind_link]


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

    def faults(self, frames: int) -> list[str]:
        """What must not be, after so many frames were sent."""
        books = self.books
        found = {
            "lost": len(books.lost),
            "doubled": self.doubled,
            "failed": books.failed.total(),
            "refused": 0 if self.fault.overload else len(books.refused),
            "not taken by the broker": frames - len(books.acknowledged),
            "not in the database": len(books.results) - self.stored,
        }
        told = [f"{count} {what}" for what, count in found.items() if count]
        return told + [reason for reason, _ in books.failed.most_common(2)]


def run(fault: Fault, frames: int, *, short: bool = False) -> Outcome:
    """Bring a world up and strike it."""
    with world_for(fault) as world:
        return strike(fault, world, frames, short=short)


def world_for(*faults: Fault) -> World:
    """What faults need that can be had in one world, one after the other."""
    links = {fault.behind_link for fault in faults if fault.behind_link not in (None, SENSOR)}
    return World(
        persistence=faults[0].persistence,
        behind_links=tuple(sorted(filter(None, links))),
        emulate=faults[0].emulate,
    )


def strike(fault: Fault, world: World, frames: int, *, short: bool = False) -> Outcome:
    """Let frames flow, strike, count."""
    began = time.monotonic()
    sensor = f"cam-{time.monotonic_ns()}"
    link = world.links[SENSOR].port if fault.behind_link == SENSOR else None
    with Traffic(world.port, TOPICS, sensor, link=link, again=fault.forgets) as traffic:
        work = Run(fault, world, traffic, frames, short)
        wrong: list[str] = []
        try:
            if not fault.overload:
                traffic.begin(frames)
            fault.strike(work)
        except AssertionError as error:
            wrong.append(f"{error}\n{world.logs()}")
        books = traffic.finish()
        stored = world.stored(sensor, books)
    outcome = Outcome(fault, books, stored, time.monotonic() - began, wrong, work.notes)
    wrong += outcome.faults(frames)
    return outcome


def each_device_killed(work: Run) -> None:
    for place, name in enumerate(DEVICES, 1):
        work.traffic.until_told(place / 5)
        work.world.restart(name)


def source_killed(work: Run) -> None:
    for _ in work.times(0.2, 0.4, 0.6):
        work.world.restart(SOURCE)


def coordinator_killed(work: Run) -> None:
    for _ in work.times(0.2, 0.5):
        work.world.restart("coordinator")


def broker_killed(work: Run) -> None:
    for _ in work.times(0.2, 0.5):
        work.world.restart_broker()


def device_frozen(work: Run) -> None:
    for seconds in work.outages():
        with frozen(work.world, "device-3"):
            time.sleep(seconds)


def link_cut(work: Run) -> None:
    for seconds in work.outages():
        work.link.cut()
        time.sleep(seconds)
        work.link.heal()


def link_stalled(work: Run) -> None:
    for seconds in work.outages():
        work.link.stall()
        time.sleep(seconds)
        work.link.heal()


def link_slow(work: Run) -> None:
    work.traffic.until_told(0.2)
    work.link.delay_s = 0.1
    work.traffic.until_told(0.5)
    work.link.bytes_per_s = 100_000
    work.traffic.until_told(0.8)
    work.link.heal()


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
    days = iter((1, -1, 400))
    for _ in work.times(0.2, 0.4, 0.6):
        work.world.clock.write_text(str(next(days) * DAY_S))
    for name in ("device-2", "coordinator", SOURCE):
        work.world.restart(name)
        work.world.clock.write_text(str(-DAY_S))


def overload(work: Run) -> None:
    world, traffic = work.world, work.traffic
    measured = max(120, work.frames // 20)
    began = time.monotonic()
    traffic.begin(measured)
    traffic.until_told(1.0)
    capacity = measured / (time.monotonic() - began)
    world.policy({"pending_limit": 20})
    traffic.begin(work.frames - measured, OVERLOAD * capacity)
    traffic.until_told(0.6)
    before = world.memory()
    traffic.until_told(0.9)
    grew = max(after - before[name] for name, after in world.memory().items()) / 2**20
    books = traffic.finish()
    window = world.said[TOPICS.policy]["window"]
    latencies = sorted(told[0]["latency_ms"] / 1000 for told in books.results.values())
    p95 = latencies[int(0.95 * len(latencies))]
    work.notes.append(
        f"{capacity:.0f} frames/s were answered and {OVERLOAD * capacity:.0f} sent; p95 of the admitted "
        f"{p95:.2f} s where window/rate is {window / capacity:.2f} s; "
        f"no process grew by more than {grew:.1f} MiB"
    )
    assert books.refused, "nothing was refused"
    until(
        lambda: world.counters(SOURCE)["refused"] == len(books.refused),
        lambda: f"{len(books.refused)} frames were told that they are refused; {world.counters(SOURCE)}",
    )
    assert grew < MAY_GROW_MIB, f"memory grew by {grew} MiB"
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
    Fault("sensor cut off, 1.5 s and 4 s", link_cut, behind_link=SENSOR, copies=True),
    Fault("tasks and outcomes doubled, late, mixed", messages_meddled_with),
    Fault("a subscriber that never reads", deaf_subscriber),
    Fault("wall clock jumps while parts restart", clock_jumps, copies=True),
    Fault("overload, five times the capacity", overload, emulate=SLOW_BOARD, overload=True),
)
