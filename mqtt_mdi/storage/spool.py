"""The spool of a source: frames it has taken in, and answers the broker may not have, in one SQLite file.

A frame's row holds its bytes until it is answered, then the answer: until the broker has it, to be sent,
and after that for a while, for a sensor that sends the frame again because it did not hear.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from mqtt_mdi.core.types import FrameKey
from mqtt_mdi.errors import StorageError
from mqtt_mdi.storage.database import Database, Schema

LOCK_WAIT_S = 2.0

_metadata = MetaData()
_frames = Table(
    "frames",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("sensor", Text, nullable=False),
    Column("frame_id", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("response_topic", Text),
    Column("correlation", LargeBinary),
    Column("starts", Integer, nullable=False, default=0),
    Column("data", LargeBinary),
    Column("answer", LargeBinary),
    Column("sent", Boolean, nullable=False, default=False),
    UniqueConstraint("pipeline", "sensor", "frame_id"),
)

_subscriptions = Table(
    "subscriptions",
    _metadata,
    Column("pipeline", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
)

SPOOL = Schema("spool", version=2, tables=_metadata, pragmas=("synchronous = FULL",), exclusive=True)

_NAMED = (
    _frames.c.pipeline == bindparam("of_pipeline"),
    _frames.c.sensor == bindparam("of_sensor"),
    _frames.c.frame_id == bindparam("of_frame"),
)
_UNSENT = _frames.c.answer.is_not(None) & ~_frames.c.sent
_KEEP = insert(_frames).on_conflict_do_nothing()
_ANSWER = update(_frames).where(*_NAMED).values(data=None, answer=bindparam("result"))
_SENT = update(_frames).where(*_NAMED).values(sent=True)
_DROP = delete(_frames).where(*_NAMED, _frames.c.data.is_not(None))


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame as its sensor sent it; `starts` counts the starts of the source that have found it here."""

    key: FrameKey
    content_type: str
    data: bytes
    response_topic: str | None
    correlation: bytes | None
    starts: int = 0


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The bytes of a frame's one result, and where its sensor wants it beside the results' topic."""

    key: FrameKey
    result: bytes
    response_topic: str | None
    correlation: bytes | None


class Spool(Database):
    """One file of one source. What is asked for gathers, and `commit` makes it last.

    A commit is on the disk when it returns (`synchronous = FULL`): what is acknowledged after it outlives
    a power cut, not only the process. The file is locked for as long as it is open, since two sources
    on one spool would answer twice.

    Args:
        path: The file. A missing or empty one is given the table.
        pipeline: Whose frames; those of others stay untouched.
        remembered: How many answers are kept at least.

    Raises:
        StorageError: The file cannot be opened, is locked, damaged, or no spool of this version; from
            `commit`, when it is full or fails.
    """

    def __init__(self, path: str | Path, pipeline: str, remembered: int) -> None:
        super().__init__(path, SPOOL, busy_timeout_s=LOCK_WAIT_S)
        self.pipeline = pipeline
        self._remembered = remembered
        self._keeps: dict[FrameKey, KeptFrame] = {}
        self._answers: dict[FrameKey, KeptAnswer] = {}
        self._sent: list[FrameKey] = []
        self._drops: list[FrameKey] = []
        self._held: set[FrameKey] = set()
        """The frames without an answer that are in the file."""
        try:
            self._begin()
            self._held.update(kept.key for kept in self.owed())
        except StorageError:
            self.close()
            raise

    def outdated(self, topics: Collection[str]) -> list[str]:
        """Note subscriptions about to be made; gives all others that ever were: the broker may keep them."""
        with self.writing() as connection:
            rows = [{"pipeline": self.pipeline, "topic": topic} for topic in topics]
            connection.execute(insert(_subscriptions).on_conflict_do_nothing(), rows)
            ours = select(_subscriptions.c.topic).where(_subscriptions.c.pipeline == self.pipeline)
            return sorted(set(connection.execute(ours).scalars()).difference(topics))

    def owed(self) -> list[KeptFrame]:
        """The frames without an answer, oldest first."""
        return [
            KeptFrame(
                FrameKey(row.sensor, row.frame_id),
                row.content_type,
                row.data,
                row.response_topic,
                row.correlation,
                row.starts,
            )
            for row in self._rows(_frames.c.data.is_not(None))
        ]

    def unsent(self) -> list[KeptAnswer]:
        """The answers that the broker may not have, oldest first."""
        return [
            KeptAnswer(FrameKey(row.sensor, row.frame_id), row.answer, row.response_topic, row.correlation)
            for row in self._rows(_UNSENT)
        ]

    def answered(self) -> list[FrameKey]:
        """The frames known to be answered, oldest first."""
        names = self._rows(_frames.c.data.is_(None), _frames.c.sensor, _frames.c.frame_id)
        return [FrameKey(row.sensor, row.frame_id) for row in names]

    def answer_to(self, frame: FrameKey) -> bytes | None:
        """The answer to a frame, while it is kept."""
        found = self._rows(
            (_frames.c.sensor == frame.sensor) & (_frames.c.frame_id == frame.frame_id),
            _frames.c.answer,
        )
        answer: bytes | None = found[0].answer if found else None
        return answer

    def keep(self, frame: KeptFrame) -> None:
        """A frame came; one that is there already stays as it is."""
        if frame.key not in self._held:
            self._keeps.setdefault(frame.key, frame)

    def answer(self, answer: KeptAnswer) -> None:
        """A frame is answered; its bytes are needed no more."""
        self._answers[answer.key] = answer

    def sent(self, frame: FrameKey) -> None:
        """The broker has the frame's answer."""
        self._sent.append(frame)

    def drop(self, frame: FrameKey) -> None:
        """Forget a frame that was refused; one that is answered stays known."""
        if frame not in self._answers and self._keeps.pop(frame, None) is None:
            self._held.discard(frame)
            self._drops.append(frame)

    @property
    def waiting(self) -> bool:
        """Whether something waits for a commit: an acknowledgement or an answer."""
        return bool(self._keeps or self._answers or self._drops)

    @property
    def untidy(self) -> bool:
        """Whether there is anything to commit at all."""
        return self.waiting or bool(self._sent)

    def commit(self) -> list[KeptAnswer]:
        """Write what has gathered in one transaction; gives the answers that may go out now."""
        if not self.untidy:
            return []
        answers = list(self._answers.values())
        with self.writing() as connection:
            if self._drops:
                connection.execute(_DROP, [self._name(key) for key in self._drops])
            if self._keeps:
                connection.execute(_KEEP, [self._row(frame) for frame in self._keeps.values()])
            if answers:
                connection.execute(_ANSWER, [{**self._name(a.key), "result": a.result} for a in answers])
            if self._sent:
                connection.execute(_SENT, [self._name(key) for key in self._sent])
            last = connection.execute(select(func.max(_frames.c.id))).scalar() or 0
            connection.execute(delete(_frames).where(_frames.c.id <= last - self._remembered, _frames.c.sent))
        self._held.update(self._keeps)
        self._held.difference_update(self._answers)
        for gathered in (self._keeps, self._answers, self._sent, self._drops):
            gathered.clear()
        return answers

    def _begin(self) -> None:
        with self.writing() as connection:
            if (fault := connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()) != "ok":
                raise StorageError(
                    f"{self.path}: the spool is damaged ({fault}): move it away, and try sqlite3's .recover "
                    "on it"
                )
            connection.execute(
                update(_frames).where(_frames.c.data.is_not(None)).values(starts=_frames.c.starts + 1)
            )

    def _rows(self, condition: ColumnElement[bool], *columns: Column[Any]) -> Sequence[Row[Any]]:
        ours = (
            select(*columns or [_frames])
            .where(_frames.c.pipeline == self.pipeline, condition)
            .order_by(_frames.c.id)
        )
        with self.reading() as connection:
            return connection.execute(ours).all()

    def _name(self, key: FrameKey) -> dict[str, object]:
        return {"of_pipeline": self.pipeline, "of_sensor": key.sensor, "of_frame": key.frame_id}

    def _row(self, frame: KeptFrame) -> dict[str, object]:
        return {
            "pipeline": self.pipeline,
            "sensor": frame.key.sensor,
            "frame_id": frame.key.frame_id,
            "content_type": frame.content_type,
            "response_topic": frame.response_topic,
            "correlation": frame.correlation,
            "starts": 0,
            "data": frame.data,
            "sent": False,
        }
