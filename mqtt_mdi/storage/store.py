"""The coordinator's database: one writer, whole batches, nothing lost or doubled by trying again."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypedDict, cast

from sqlalchemy import Boolean, Connection, Executable, Integer, bindparam, func, select, text, update
from sqlalchemy.dialects.sqlite import insert

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, FrameKey, Result, Truth, Window
from mqtt_mdi.errors import ProtocolError, StorageError
from mqtt_mdi.storage.database import Database
from mqtt_mdi.storage.tables import (
    STORE,
    dead_letters,
    device_changes,
    devices,
    policies,
    results,
    truths,
    windows,
)
from mqtt_mdi.wire.messages import DEVICE_STATE, POLICY, DeadLetter

# The rows that a transaction adds are those whose ids lie above the highest before it; a truth that is
# replaced gets a new id too. Joining just these keeps a write's time free of the size of the tables.
_LAST_IDS = select(
    select(func.coalesce(func.max(results.c.id), 0)).scalar_subquery().label("last_result"),
    select(func.coalesce(func.max(truths.c.id), 0)).scalar_subquery().label("last_truth"),
)
_COUNT_NEW = select(func.count()).where(results.c.id > bindparam("last_result"))
_NEW_RESULTS = (
    select(results.c.sensor, results.c.frame_id)
    .where(results.c.id > bindparam("last_result"))
    .order_by(results.c.id)
)

# CROSS JOIN is SQLite's way to say that the left table leads; the planner would rather scan all results.
_NEWLY_JUDGED = text("""
    SELECT results.id AS row, results.correct AS was, results.label IS truths.label AS right
    FROM results CROSS JOIN truths USING (pipeline, sensor, frame_id)
    WHERE results.id > :last_result AND status = 'ok'
    UNION
    SELECT results.id AS row, results.correct AS was, results.label IS truths.label AS right
    FROM truths CROSS JOIN results USING (pipeline, sensor, frame_id)
    WHERE truths.id > :last_truth AND status = 'ok'
    ORDER BY row
""").columns(row=Integer, was=Boolean, right=Boolean)
_SET_CORRECT = update(results).where(results.c.id == bindparam("row")).values(correct=bindparam("right"))

# Results are what comes by the thousand: they go past SQLAlchemy's work on the parameters of each row.
_RESULT_FIELDS = tuple(field.name for field in fields(Result))
_RESULT_COLUMNS = ("pipeline", *_RESULT_FIELDS, "received_at")
_INSERT_RESULT = (
    f"INSERT INTO results ({', '.join(_RESULT_COLUMNS)}) "  # noqa: S608 -- our own names
    f"VALUES ({', '.join('?' * len(_RESULT_COLUMNS))}) ON CONFLICT DO NOTHING"
)
_result_values = attrgetter(*_RESULT_FIELDS)

_INSERT_POLICY = insert(policies).on_conflict_do_nothing()
_REPLACE_TRUTH = insert(truths).prefix_with("OR REPLACE")
_REPLACE_DEVICE = insert(devices).on_conflict_do_update(
    set_={name: insert(devices).excluded[name] for name in ("online", "stages", "state", "seen_at")}
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written in one transaction; each time is in seconds since 1970."""

    results: tuple[tuple[Result, float], ...] = ()
    truths: tuple[Truth, ...] = ()
    policies: tuple[tuple[Policy, str, float], ...] = ()
    devices: tuple[tuple[DeviceState, float], ...] = ()
    windows: tuple[tuple[Window, float], ...] = ()
    dead_letters: tuple[tuple[DeadLetter, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch changed.

    `new_results` are those the database did not have, `duplicates` counts the others. `graded` says of
    each answer whose truth first became known with this batch whether it was right; a failed frame has
    no answer to grade. `corrected` is how many more of those graded before are right now.
    """

    new_results: tuple[Result, ...] = ()
    duplicates: int = 0
    graded: tuple[bool, ...] = ()
    corrected: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over everything stored; `exits[k]` counts the answers given at exit k + 1."""

    answered: int
    failed: int
    graded: int
    correct: int
    exits: tuple[int, ...]


class ExitSummary(TypedDict):
    """One exit: its share of the answers, and the share of its graded answers that were right."""

    exit_stage: int | None
    frames: int
    share: float
    accuracy: float | None


class Summary(TypedDict):
    """A pipeline's figures as the views `summary` and `exits` give them; None where nothing is known."""

    pipeline: str
    frames: int
    answered: int
    failed: int
    graded: int
    correct: int
    accuracy: float | None
    throughput: float | None
    latency_mean_ms: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    exits: list[ExitSummary]


class Store:
    """The database of one pipeline, written by one thread at a time; others may read meanwhile.

    Args:
        path: The SQLite file; made if there is none.
        pipeline: Whose rows are written and read; a file may hold several pipelines.
        busy_timeout_s: Seconds to wait while another program writes.

    Raises:
        StorageError: The file cannot be opened, or is no database of this version of mqtt-mdi. Every
            method raises it when the database is locked, full, read-only or damaged.
    """

    def __init__(self, path: str | Path, pipeline: str, *, busy_timeout_s: float = 5.0) -> None:
        self.pipeline = pipeline
        self._database = Database(path, STORE, busy_timeout_s=busy_timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back; what was written is in it."""
        self._database.close()

    def write(self, batch: Batch) -> Written:
        """Write a batch whole or not at all; after a StorageError the same batch can be given again.

        A result or policy version that is stored already is left as it is; a later truth or device state
        takes the place of the earlier one. The time taken depends on the batch, not on what is stored.
        """
        with self._database.writing() as connection:
            last = dict(connection.execute(_LAST_IDS).mappings().one())
            if batch.results:
                rows = [(self.pipeline, *_result_values(result), at) for result, at in batch.results]
                connection.exec_driver_sql(_INSERT_RESULT, rows)
            self._insert(connection, _REPLACE_TRUTH, [_row(truth) for truth in batch.truths])
            self._insert(connection, _INSERT_POLICY, [_policy_row(*entry) for entry in batch.policies])
            self._insert(connection, insert(windows), [_row(w, started_at=at) for w, at in batch.windows])
            self._insert(connection, insert(dead_letters), [_row(d, at=at) for d, at in batch.dead_letters])
            self._write_devices(connection, batch.devices)
            new = _new_results(connection, last, batch)
            graded, corrected = _grade(connection, last)
        return Written(new, len(batch.results) - len(new), graded, corrected)

    def last_policy(self) -> Policy | None:
        """The policy of the highest version, or None before the first."""
        mine = select(policies.c.body).where(policies.c.pipeline == self.pipeline)
        with self._database.reading() as connection:
            body = connection.scalar(mine.order_by(policies.c.version.desc()).limit(1))
        if body is None:
            return None
        try:
            return POLICY.decode(body.encode())
        except ProtocolError as error:
            raise StorageError(
                f"{self._database.path}: the last policy of {self.pipeline} is not one that this version "
                f"of mqtt-mdi reads ({error}): delete it from the table policies, or give another path"
            ) from error

    def totals(self) -> Totals:
        """Count everything stored; reads all of the pipeline's results, so ask once, at the start."""
        mine = results.c.pipeline == self.pipeline
        ok = results.c.status == "ok"
        counts = select(
            func.count().filter(ok),
            func.count().filter(results.c.status == "failed"),
            func.count(results.c.correct),
            func.count().filter(results.c.correct),
        ).where(mine)
        by_exit = select(results.c.exit_stage, func.count()).where(mine, ok).group_by(results.c.exit_stage)
        with self._database.reading() as connection:
            answered, failed, graded, correct = connection.execute(counts).one()
            exits = {stage: count for stage, count in connection.execute(by_exit) if stage is not None}
        by_stage = tuple(exits.get(k, 0) for k in range(1, max(exits, default=0) + 1))
        return Totals(answered, failed, graded, correct, by_stage)

    def summary(self) -> Summary:
        """The pipeline's figures, from the views that `sqlite3` shows too; reads all of its results."""
        with self._database.reading() as connection:
            return _summary(connection, self.pipeline)

    def _insert(self, connection: Connection, statement: Executable, rows: list[dict[str, Any]]) -> None:
        if rows:
            connection.execute(statement, [{"pipeline": self.pipeline, **row} for row in rows])

    def _write_devices(self, connection: Connection, states: Sequence[tuple[DeviceState, float]]) -> None:
        if not states:
            return
        stored = select(devices.c.device, devices.c.online, devices.c.stages)
        known = {
            device: (online, stages)
            for device, online, stages in connection.execute(
                stored.where(devices.c.pipeline == self.pipeline)
            )
        }
        latest: dict[str, dict[str, Any]] = {}
        changes: list[dict[str, Any]] = []
        for state, at in states:
            seen = {"device": state.device, "online": state.online, "stages": list(state.stages)}
            latest[state.device] = {**seen, "state": DEVICE_STATE.encode(state).decode(), "seen_at": at}
            if known.get(state.device) != (state.online, seen["stages"]):
                known[state.device] = (state.online, seen["stages"])
                changes.append({**seen, "at": at})
        self._insert(connection, _REPLACE_DEVICE, list(latest.values()))
        self._insert(connection, insert(device_changes), changes)


def read_summary(path: str | Path, pipeline: str) -> Summary:
    """A pipeline's figures, read without touching the file; another process may be writing it.

    Raises:
        StorageError: There is no such file, or it is no database of this version of mqtt-mdi.
    """
    with closing(Database(path, STORE, read_only=True)) as database, database.reading() as connection:
        return _summary(connection, pipeline)


class PolicyChange(NamedTuple):
    """A policy that was put in force, why, and when (seconds since 1970)."""

    policy: Policy
    origin: str
    set_at: float


def read_policies(path: str | Path, pipeline: str) -> list[PolicyChange]:
    """All policies of a pipeline in the order of their versions; raises StorageError as `read_summary`."""
    wanted = select(policies).where(policies.c.pipeline == pipeline).order_by(policies.c.version)
    with closing(Database(path, STORE, read_only=True)) as database, database.reading() as connection:
        rows = connection.execute(wanted).all()
    return [PolicyChange(POLICY.decode(row.body.encode()), row.origin, row.set_at) for row in rows]


def _row(value: Truth | Window | DeadLetter, **more: float) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)} | more


def _policy_row(policy: Policy, origin: str, set_at: float) -> dict[str, Any]:
    body = POLICY.encode(policy).decode()
    return {"version": policy.version, "body": body, "origin": origin, "set_at": set_at}


def _new_results(connection: Connection, last: dict[str, int], batch: Batch) -> tuple[Result, ...]:
    """Those of a batch's results that were inserted."""
    if connection.execute(_COUNT_NEW, last).scalar_one() == len(batch.results):
        return tuple(result for result, _ in batch.results)
    # of several results to one frame the first is the one that was stored
    given = {result.frame: result for result, _ in reversed(batch.results)}
    return tuple(given[FrameKey(*row)] for row in connection.execute(_NEW_RESULTS, last))


def _grade(connection: Connection, last: dict[str, int]) -> tuple[tuple[bool, ...], int]:
    """Which of those first judged now are right, and how many more of the others than before."""
    judged = connection.execute(_NEWLY_JUDGED, last).all()
    changes = [{"row": row, "right": right} for row, was, right in judged if right != was]
    if changes:
        connection.execute(_SET_CORRECT, changes)
    known = [(was, right) for _, was, right in judged if was is not None]
    return tuple(right for _, was, right in judged if was is None), sum(right - was for was, right in known)


def _summary(connection: Connection, pipeline: str) -> Summary:
    mine = {"pipeline": pipeline}
    figures = connection.execute(text("SELECT * FROM summary WHERE pipeline = :pipeline"), mine)
    exits = connection.execute(
        text("SELECT exit_stage, frames, share, accuracy FROM exits WHERE pipeline = :pipeline"), mine
    )
    row = figures.mappings().one_or_none()
    counts = ("frames", "answered", "failed", "graded", "correct")
    nothing = dict.fromkeys(Summary.__annotations__) | dict.fromkeys(counts, 0)
    return cast(
        "Summary", {**(row or nothing), "pipeline": pipeline, "exits": [dict(e) for e in exits.mappings()]}
    )
