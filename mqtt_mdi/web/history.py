"""What the page reads of the coordinator's database, without ever changing it."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from math import ceil
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from mqtt_mdi.storage.database import Database
from mqtt_mdi.storage.tables import STORE, dead_letters, device_changes, policies, results, truths, windows

POINTS = 600
"""Into how many stretches a span of time is cut, at most."""

LATELY_S = 30
ROWS = 40
LOOKED_AT = 100_000
"""Rows of a table, the newest, among which those of a pipeline are looked for."""


@dataclass(frozen=True)
class History:
    """One pipeline's rows; any thread may ask, until `close`.

    `classes` are the names of labels. Everything raises StorageError when the file cannot be read.
    """

    path: Path
    pipeline: str
    classes: tuple[str, ...]

    def over_time(self, seconds: int, since: float) -> dict[str, Any]:
        """Rate, accuracy and latency over the last `seconds`, of stretches that begin at `since` or later.

        A stretch of more than one window has the highest of their 95th percentiles, and the mean of
        their medians.
        """
        now = time.time()
        step = max(1, ceil(seconds / POINTS))
        begin = max(now - seconds, since)
        rows = self._windows(now - min(begin, now - LATELY_S))
        points = [
            _point(at, step, now, list(group))
            for at, group in groupby(rows, lambda row: row.started_at // step * step)
            if at >= begin - step
        ]
        lately = [row for row in rows if row.started_at >= now - LATELY_S]
        exits: Counter[int] = Counter()
        for row in lately:
            exits.update(dict(enumerate(row.exits)))
        counts = [exits[index] for index in range(max(exits, default=-1) + 1)]
        return {"step": step, "points": points, "lately_s": LATELY_S, "exits_lately": counts}

    def policies(self) -> list[dict[str, Any]]:
        """The last versions, newest first, with what each changed of the one before."""
        wanted = select(policies).where(policies.c.pipeline == self.pipeline)
        with self._reading() as connection:
            rows = connection.execute(wanted.order_by(policies.c.version.desc()).limit(ROWS + 1)).all()
        bodies = [json.loads(row.body) for row in rows]
        changes = [_difference(before, body) for body, before in pairwise(bodies)]
        if len(rows) <= ROWS:  # the first of all has nothing before it
            changes.append({})
        return [
            {
                "version": row.version,
                "origin": row.origin,
                "at": row.set_at,
                "policy": body,
                "changed": changed,
            }
            for row, body, changed in zip(rows, bodies, changes, strict=False)
        ]

    def recent(self) -> dict[str, Any]:
        """The last answers, dead letters, and comings and goings of devices, newest first."""
        truth = results.outerjoin(
            truths,
            (truths.c.pipeline == results.c.pipeline)
            & (truths.c.sensor == results.c.sensor)
            & (truths.c.frame_id == results.c.frame_id),
        )
        answers = select(results, truths.c.label.label("truth")).select_from(truth)
        with self._reading() as connection:
            return {
                "answers": [self._answer(row) for row in self._last(connection, answers, results)],
                "dead_letters": [
                    _plain(row) for row in self._last(connection, select(dead_letters), dead_letters)
                ],
                "device_changes": [
                    _plain(row) for row in self._last(connection, select(device_changes), device_changes)
                ],
            }

    def close(self) -> None:
        """Close the file."""
        if "_database" in self.__dict__:
            self._database.close()

    @cached_property
    def _database(self) -> Database:
        """Opened once, at the first use that succeeds: statements are compiled for one that is open."""
        return Database(self.path, STORE, read_only=True)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._database.reading() as connection:
            yield connection

    def _windows(self, seconds: float) -> Sequence[Row[Any]]:
        """Windows of the last `seconds`, oldest first; each lasts a second or more, ids rise with time."""
        wanted = select(windows).where(windows.c.pipeline == self.pipeline)
        latest = wanted.order_by(windows.c.id.desc()).limit(ceil(seconds) + 2)
        with self._reading() as connection:
            return connection.execute(latest).all()[::-1]

    def _last(self, connection: Connection, wanted: Select[Any], table: Any) -> Sequence[Row[Any]]:  # noqa: ANN401
        newest = select(func.max(table.c.id) - LOOKED_AT).scalar_subquery()
        # By its index SQLite would read all rows of the pipeline and sort them; this expression is in none.
        mine = wanted.where(table.c.id > newest, table.c.pipeline + "" == self.pipeline)
        return connection.execute(mine.order_by(table.c.id.desc()).limit(ROWS)).all()

    def _answer(self, row: Row[Any]) -> dict[str, Any]:
        known = row.truth is not None and row.truth < len(self.classes)
        return {**_plain(row), "truth_name": self.classes[row.truth] if known else None}


def _plain(row: Row[Any]) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name != "pipeline"}  # noqa: SLF001 -- its API


def _point(at: float, step: int, now: float, rows: list[Row[Any]]) -> dict[str, Any]:
    answered = sum(row.answered for row in rows)
    halves = [row.latency_p50_ms for row in rows if row.latency_p50_ms is not None]
    tails = [row.latency_p95_ms for row in rows if row.latency_p95_ms is not None]
    return {
        "at": at,
        "throughput": answered / max(sum(row.seconds for row in rows), min(step, now - at)),
        "graded": sum(row.graded for row in rows),
        "correct": sum(row.correct for row in rows),
        "latency_p50_ms": sum(halves) / len(halves) if halves else None,
        "latency_p95_ms": max(tails, default=None),
    }


def _difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The fields of `after` that are not as they were, None for those that are gone; but not the version."""
    names = sorted((before.keys() | after.keys()) - {"version"})
    return {name: after.get(name) for name in names if before.get(name) != after.get(name)}
