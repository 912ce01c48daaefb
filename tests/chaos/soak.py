"""`make soak`: many frames through a pipeline, and how much memory each process holds as they go by."""

import argparse
import json
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redrawn import redrawn
from rich.console import Console
from rich.table import Table

from chaos.traffic import FRAMES, STUCK_S, WINDOW, Station
from chaos.world import TOPICS, World

MIB = 2**20
MAY_GROW = 0.10
SOURCES = {"source-1": ("--sensors", "cam-1"), "source-2": ("--sensors", "cam-2", "--spool", "source.spool")}
SENSORS = ("cam-1", "cam-2")
"""Each sends every other frame, one to a source with a spool, one to a source without."""

STORED_S = 20.0
"""How long the coordinator may take to store what was answered last."""


@dataclass(frozen=True)
class Sample:
    """Resident bytes of each process once so many frames have been answered, after so many seconds."""

    frames: int
    seconds: float
    resident: dict[str, int]


@dataclass
class Soak:
    """What a soak has seen; `results[n]` counts the results of frame n: a byte each."""

    results: bytearray
    failed: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    stored: int = 0

    @property
    def answered(self) -> int:
        """Frames with at least one result."""
        return len(self.results) - self.results.count(0)

    def growth(self) -> dict[str, float]:
        """By what share of its first value the memory of each process has grown."""
        if not self.samples:
            return {}
        first, last = self.samples[0].resident, self.samples[-1].resident
        return {name: last[name] / first[name] - 1 for name in first}

    def faults(self, may_grow: float) -> list[str]:
        """What must not be."""
        lost, once = self.results.count(0), self.results.count(1)
        found = {
            "lost": lost,
            "doubled": len(self.results) - lost - once,
            "failed": self.failed.total(),
            "not in the database": len(self.results) - self.stored,
        }
        told = [f"{count} frames {what}" for what, count in found.items() if count]
        told += [reason for reason, _ in self.failed.most_common(2)]
        return told + [
            f"{name} grew by {100 * grown:.1f}%, {100 * may_grow:.0f}% are allowed"
            for name, grown in self.growth().items()
            if grown > may_grow
        ]


class Traffic:
    """Two sensors in one client, which sends a frame for each result it hears."""

    def __init__(self, port: int, soak: Soak) -> None:
        self._soak = soak
        self._sent = 0
        self._told = 0
        self._news = threading.Condition()
        self._station = Station(port, tuple(map(TOPICS.results, SENSORS)), self._hear)

    def __enter__(self) -> Self:
        self._station.__enter__()
        for _ in range(min(WINDOW, len(self._soak.results))):
            self._send()
        return self

    def __exit__(self, *_: object) -> None:
        self._station.__exit__()

    def wait(self, frames: int) -> bool:
        """Wait until so many frames have a result; False when no more come."""
        with self._news:
            while (told := self._told) < frames:
                if not self._news.wait_for(lambda told=told: self._told > told, STUCK_S):  # type: ignore[misc]
                    return False
        return True

    def _send(self) -> None:
        number, self._sent = self._sent, self._sent + 1
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.CorrelationData = str(number).encode()
        topic = TOPICS.frames(SENSORS[number % len(SENSORS)])
        self._station.client.publish(topic, FRAMES[number % len(FRAMES)], qos=1, properties=properties)

    def _hear(self, message: paho.MQTTMessage) -> None:
        result = json.loads(message.payload)
        number = int(result["frame_id"])
        results = self._soak.results
        results[number] = min(255, results[number] + 1)
        if result["status"] != "ok":
            self._soak.failed[result["reason"]] += 1
        if results[number] > 1:
            return
        if self._sent < len(results):
            self._send()
        with self._news:
            self._told += 1
            self._news.notify_all()


def run(frames: int, every: int, shown: Callable[[Soak], None] = lambda _soak: None) -> Soak:
    """Let frames go by as fast as they are answered, and look at the processes after `every` so many."""
    soak = Soak(bytearray(frames))
    with World(sources=SOURCES) as world:
        began = time.monotonic()
        with Traffic(world.port, soak) as traffic:
            for count in range(every, frames + 1, every):
                if not traffic.wait(count):
                    break
                soak.samples.append(Sample(count, time.monotonic() - began, world.memory()))
                shown(soak)
            soak.stored = _stored(world.folder / "results.db", frames)
    return soak


def _stored(database: Path, frames: int) -> int:
    """The rows of results, once there is one for each frame or time is up."""
    deadline = time.monotonic() + STORED_S
    with closing(sqlite3.connect(database)) as connection:
        while True:
            rows: int = connection.execute("SELECT count(*) FROM results").fetchone()[0]
            if rows >= frames or time.monotonic() > deadline:
                return rows
            time.sleep(0.1)


def table(soak: Soak, may_grow: float) -> Table:
    """Resident MiB of each process so far."""
    names = list(soak.samples[0].resident) if soak.samples else []
    shown = Table("frames", "s", *names, title="resident memory, MiB")
    for column in shown.columns:
        column.justify = "right"
    for sample in soak.samples:
        resident = (f"{sample.resident[name] / MIB:.1f}" for name in names)
        shown.add_row(str(sample.frames), f"{sample.seconds:.0f}", *resident)
    if len(soak.samples) > 1:
        growth = soak.growth().values()
        marks = (f"[{'red' if grown > may_grow else 'green'}]{100 * grown:+.1f}%" for grown in growth)
        shown.add_section()
        shown.add_row("grown", "", *marks)
    return shown


def main() -> int:
    """Run it; 1 when a process grew, or a frame was lost or doubled."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--frames", type=int, default=200_000, help="200000 by default")
    parser.add_argument(
        "--every", type=int, default=20_000, help="frames between two looks, 20000 by default"
    )
    parser.add_argument("--save", type=Path, default=Path("runs/soak.json"), help="where the figures go")
    asked = parser.parse_args()
    if asked.frames < 2 * asked.every:
        parser.error("--frames must be at least twice --every: growth needs two looks")
    console = Console(width=None if sys.stdout.isatty() else 120)
    with redrawn(console) as live:
        soak = run(asked.frames, asked.every, lambda soak: live.update(table(soak, MAY_GROW), refresh=True))
    asked.save.parent.mkdir(parents=True, exist_ok=True)
    samples = [vars(sample) for sample in soak.samples]
    asked.save.write_text(json.dumps({"answered": soak.answered, "samples": samples}, indent=1) + "\n")
    faults = soak.faults(MAY_GROW)
    for fault in faults:
        console.print(fault, markup=False, style="red")
    console.print(f"{soak.answered} of {asked.frames} frames answered; written to {asked.save}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
