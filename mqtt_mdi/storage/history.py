"""What a database tells of a run over time; read without touching the file."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text

from mqtt_mdi.errors import ConfigError, StorageError
from mqtt_mdi.storage.database import Database
from mqtt_mdi.storage.tables import STORE, dead_letters, device_changes, devices, policies, results

MOST_STRETCHES = 40
LOCK_WAIT_S = 1.0
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LENGTHS_S = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
)

# The same percentiles as in the view `summary`, for each stretch of time by itself.
_STRETCHES = text("""
    SELECT
        stretch,
        count(*) FILTER (WHERE status = 'ok') AS answered,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(correct) AS graded,
        count(*) FILTER (WHERE correct) AS correct,
        min(latency_ms) FILTER (WHERE status = 'ok' AND rank >= 0.50) AS p50,
        min(latency_ms) FILTER (WHERE status = 'ok' AND rank >= 0.95) AS p95
    FROM (
        SELECT *, cume_dist() OVER (PARTITION BY stretch, status ORDER BY latency_ms) AS rank
        FROM (
            SELECT status, correct, latency_ms,
                min(CAST((received_at - :first) / :seconds AS INTEGER), :last) AS stretch
            FROM results WHERE pipeline = :pipeline
        )
    )
    GROUP BY stretch
""")
_EXITS = text("""
    SELECT min(CAST((received_at - :first) / :seconds AS INTEGER), :last) AS stretch, exit_stage, count(*)
    FROM results WHERE pipeline = :pipeline AND status = 'ok' AND exit_stage IS NOT NULL
    GROUP BY 1, 2
""")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What came in a stretch of time that began `began_s` seconds after the run's first result.

    `exits[k]` counts the answers given at exit k + 1. `graded` counts the answers of this stretch whose
    truth is known, whenever it came.
    """

    began_s: float
    seconds: float
    answered: int = 0
    failed: int = 0
    graded: int = 0
    correct: int = 0
    exits: tuple[int, ...] = ()
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None

    @property
    def throughput(self) -> float | None:
        """Answers a second; None where all came at one moment."""
        return self.answered / self.seconds if self.seconds else None

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among the graded."""
        return self.correct / self.graded if self.graded else None


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """A device came, went or changed its stages, at a time in seconds since 1970."""

    device: str
    online: bool
    stages: tuple[int, ...]
    at: float


@dataclass(frozen=True, slots=True)
class DeviceTotals:
    """What a device brought: the answers it gave, and its counters as last stored, at `seen_at`."""

    device: str
    role: str
    online: bool
    answered: int
    graded: int
    correct: int
    counters: Mapping[str, int]
    seen_at: float | None


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A policy as JSON has it, why it was put in force and when (seconds since 1970)."""

    version: int
    body: Mapping[str, Any]
    origin: str
    set_at: float


@dataclass(frozen=True, slots=True)
class History:
    """One pipeline of one database; `first` and `last` are when its results came, in seconds since 1970."""

    path: Path
    pipeline: str
    first: float
    last: float
    summary: Mapping[str, Any]
    stretches: tuple[Stretch, ...]
    devices: tuple[DeviceTotals, ...]
    changes: tuple[DeviceChange, ...]
    policies: tuple[PolicyVersion, ...]
    failures: Mapping[str, int]
    dead_letters: int

    @property
    def exits(self) -> tuple[int, ...]:
        """Answers at each exit over the whole run."""
        return tuple(map(sum, zip(*(stretch.exits for stretch in self.stretches), strict=True)))


def stretch_length(duration_s: float, most: int = MOST_STRETCHES) -> float:
    """The shortest length that people count in, from 0.1 s to days, of which `most` cover a duration."""
    wanted = duration_s / most
    return next((length for length in _LENGTHS_S if length >= wanted), _DAY * ceil(wanted / _DAY))


def pipelines(path: str | Path) -> list[str]:
    """The pipelines that have results in a database; StorageError when it cannot be read."""
    with _opened(path) as database, database.reading() as connection:
        return list(connection.scalars(select(results.c.pipeline).distinct().order_by(results.c.pipeline)))


def span(path: str | Path, pipeline: str) -> float:
    """Seconds from the first result of a pipeline to its last; errors as `read_history`."""
    with _opened(path) as database, database.reading() as connection:
        first, last = _ends(connection, database.path, pipeline)
    return last - first


def read_history(path: str | Path, pipeline: str, seconds: float | None = None) -> History:
    """Everything that a report shows of a pipeline, from one state of the database.

    Args:
        path: The coordinator's database; another process may be writing it.
        pipeline: Whose rows.
        seconds: Length of each stretch of time, by default what `stretch_length` finds fitting. The last
            takes what is left: at least half as long, at most one and a half times.

    Raises:
        ConfigError: The pipeline has no result there.
        StorageError: There is no such file, it is locked or damaged, or no database of this version.
    """
    with _opened(path) as database, database.reading() as connection:
        first, last = _ends(connection, database.path, pipeline)
        mine = {"pipeline": pipeline}
        reasons = select(results.c.reason, func.count()).where(
            results.c.pipeline == pipeline, results.c.status == "failed"
        )
        failures = connection.execute(reasons.group_by(results.c.reason).order_by(func.count().desc()))
        return History(
            database.path,
            pipeline,
            first,
            last,
            dict(
                connection.execute(text("SELECT * FROM summary WHERE pipeline = :pipeline"), mine)
                .mappings()
                .one()
            ),
            _stretches(connection, pipeline, first, last, seconds or stretch_length(last - first)),
            _devices(connection, database.path, pipeline),
            _changes(connection, pipeline),
            _policies(connection, database.path, pipeline),
            {reason or "no reason given": count for reason, count in failures},
            connection.scalar(
                select(func.count()).select_from(dead_letters).where(dead_letters.c.pipeline == pipeline)
            )
            or 0,
        )


def _opened(path: str | Path) -> closing[Database]:
    return closing(Database(path, STORE, read_only=True, busy_timeout_s=LOCK_WAIT_S))


def _ends(connection: Connection, path: Path, pipeline: str) -> tuple[float, float]:
    ends = select(func.min(results.c.received_at), func.max(results.c.received_at))
    first, last = connection.execute(ends.where(results.c.pipeline == pipeline)).one()
    if first is None:
        there = ", ".join(connection.scalars(select(results.c.pipeline).distinct()))
        raise ConfigError(
            f"{path}: no results of pipeline {pipeline}; "
            + (f"there are some of {there}: name one with --pipeline" if there else "there are none at all")
        )
    return first, last


def _stretches(
    connection: Connection, pipeline: str, first: float, last: float, seconds: float
) -> tuple[Stretch, ...]:
    count = max(1, int((last - first) / seconds + 0.5))
    asked = {"pipeline": pipeline, "first": first, "seconds": seconds, "last": count - 1}
    found = {row.stretch: row for row in connection.execute(_STRETCHES, asked)}
    exits: dict[int, Counter[int]] = {place: Counter() for place in range(count)}
    for place, stage, answers in connection.execute(_EXITS, asked):
        exits[place][stage] = answers
    stages = range(1, max((stage for counts in exits.values() for stage in counts), default=0) + 1)
    made = []
    for place in range(count):
        began = place * seconds
        length = seconds if place < count - 1 else last - first - began
        by_exit = tuple(exits[place][stage] for stage in stages)
        if (row := found.get(place)) is None:
            made.append(Stretch(began, length, exits=by_exit))
        else:
            figures = (row.answered, row.failed, row.graded, row.correct, by_exit, row.p50, row.p95)
            made.append(Stretch(began, length, *figures))
    return tuple(made)


def _devices(connection: Connection, path: Path, pipeline: str) -> tuple[DeviceTotals, ...]:
    known = {
        row.device: row for row in connection.execute(select(devices).where(devices.c.pipeline == pipeline))
    }
    ok = (results.c.pipeline == pipeline, results.c.status == "ok", results.c.device.is_not(None))
    answers = select(
        results.c.device,
        func.count().label("answered"),
        func.count(results.c.correct).label("graded"),
        func.count().filter(results.c.correct).label("correct"),
    ).where(*ok)
    gave = {row.device: row for row in connection.execute(answers.group_by(results.c.device))}
    made = []
    for name in sorted({*known, *gave}):
        row, given = known.get(name), gave.get(name)
        state = _json_map(row.state, f"{path}: the state of {name}", "devices") if row else {}
        made.append(
            DeviceTotals(
                name,
                state.get("role", "device"),
                row.online if row else False,
                given.answered if given else 0,
                given.graded if given else 0,
                given.correct if given else 0,
                state.get("counters", {}),
                row.seen_at if row else None,
            )
        )
    return tuple(made)


def _changes(connection: Connection, pipeline: str) -> tuple[DeviceChange, ...]:
    mine = select(device_changes).where(device_changes.c.pipeline == pipeline).order_by(device_changes.c.id)
    return tuple(
        DeviceChange(row.device, row.online, tuple(row.stages), row.at) for row in connection.execute(mine)
    )


def _policies(connection: Connection, path: Path, pipeline: str) -> tuple[PolicyVersion, ...]:
    mine = select(policies).where(policies.c.pipeline == pipeline).order_by(policies.c.version)
    made = []
    for row in connection.execute(mine):
        body = _json_map(row.body, f"{path}: policy {row.version} of {pipeline}", "policies")
        made.append(PolicyVersion(row.version, body, row.origin, row.set_at))
    return tuple(made)


def _json_map(said: str, where: str, table: str) -> dict[str, Any]:
    try:
        value = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{where} is no JSON ({error}): delete it from the table {table}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{where} is no JSON object: delete it from the table {table}")
    return value
