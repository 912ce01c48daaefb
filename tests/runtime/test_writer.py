import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from live import until

from mqtt_mdi.core.types import Result
from mqtt_mdi.runtime.writer import Writer
from mqtt_mdi.storage.store import Batch, Store, Written


class Desk:
    """A writer on a real database, and what it says."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, "demo", busy_timeout_s=0.05)
        self.written: list[Written] = []
        self.failing: list[str] = []
        self.threads: set[str] = set()
        self.writer = Writer(self.store, self._written, self.failing.append)
        self.writer.start()

    def write(self, *frame_ids: str) -> None:
        self.writer.write(
            Batch(tuple((Result("cam", frame_id, "ok", label=1), 0.0) for frame_id in frame_ids))
        )

    def _written(self, written: Written) -> None:
        self.threads.add(threading.current_thread().name)
        self.written.append(written)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def desk(path: Path) -> Iterator[Desk]:
    desk = Desk(path)
    yield desk
    desk.writer.stop()
    desk.store.close()


@pytest.fixture
def other(path: Path, desk: Desk) -> Iterator[sqlite3.Connection]:
    """Another program at the same file."""
    assert desk
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def stored(other: sqlite3.Connection) -> list[str]:
    return [frame_id for (frame_id,) in other.execute("SELECT frame_id FROM results ORDER BY id")]


def test_batches_are_written_in_order(desk: Desk, other: sqlite3.Connection) -> None:
    desk.write("a", "b")
    desk.write("c", "a")
    until(lambda: len(desk.written) == 2)
    assert stored(other) == ["a", "b", "c"]
    assert [written.duplicates for written in desk.written] == [0, 1]
    assert desk.threads == {"writer"}
    assert not desk.failing


def test_a_locked_database_is_tried_until_it_takes_the_batch(desk: Desk, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    desk.write("a")
    desk.write("b")
    until(lambda: len(desk.failing) >= 2)
    assert "another program keeps it locked" in desk.failing[0]
    assert not desk.written
    other.execute("ROLLBACK")
    until(lambda: len(desk.written) == 2)
    assert stored(other) == ["a", "b"]


def test_it_ends_even_while_the_database_is_locked(desk: Desk, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    desk.write("a")
    until(lambda: desk.failing)
    desk.writer.stop()
    other.execute("ROLLBACK")
    assert stored(other) == []
    assert not desk.written


def test_what_is_at_hand_is_written_before_the_end(desk: Desk, other: sqlite3.Connection) -> None:
    for number in range(20):
        desk.write(f"{number:02}")
    desk.writer.stop()
    assert stored(other) == [f"{number:02}" for number in range(20)]
