"""An SQLite file with our tables in it: opened, checked, and its faults told in plain words."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, MetaData, Pool, StaticPool, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from mqtt_mdi.errors import StorageError

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked: end that program's transaction, then write again",
    sqlite3.SQLITE_FULL: "the disk is full: make room, then write again",
    sqlite3.SQLITE_READONLY: "it may only be read: allow this user to write it, or give another path",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that it and its folder exist and are allowed",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database: move it away, or give another path",
    sqlite3.SQLITE_CORRUPT: "the database is damaged: move it away, and try sqlite3's .recover on it",
    sqlite3.SQLITE_IOERR: "the disk fails to read or write: check it, then write again",
}


@dataclass(frozen=True)
class Schema:
    """What a file holds.

    `version` is kept in the file as `PRAGMA user_version`, and to be raised by every change of the rest.
    `exclusive` locks the file for as long as it is open.
    """

    what: str
    version: int
    tables: MetaData
    views: tuple[str, ...] = ()
    pragmas: tuple[str, ...] = ()
    exclusive: bool = False


class Database:
    """One file; each use of it is one transaction.

    Args:
        path: The file. A missing or empty one is given the tables, unless `read_only`.
        schema: What it has to hold.
        read_only: Open without ever changing the file.
        busy_timeout_s: Seconds to wait for another program's lock.

    Raises:
        StorageError: The file cannot be opened, or is no database of this version of mqtt-mdi. Using
            it raises the same when it is locked, full, read-only or damaged.
    """

    def __init__(
        self, path: str | Path, schema: Schema, *, read_only: bool = False, busy_timeout_s: float = 5.0
    ) -> None:
        self.path = Path(path).resolve()
        self.schema = schema
        if read_only:
            url = URL.create("sqlite", database=self.path.as_uri(), query=_to_read(self.path))
        else:
            url = URL.create("sqlite", database=str(self.path))
        # without an isolation level the driver begins no transaction by itself: `reading`, `writing` do
        driver = {"timeout": busy_timeout_s, "isolation_level": None}
        pool: type[Pool] | None = StaticPool if schema.exclusive else None
        self.engine = create_engine(url, connect_args=driver, poolclass=pool)
        event.listen(self.engine, "connect", self._configure)
        try:
            with self.reading() if read_only else self.writing() as connection:
                if not read_only and _is_new(connection):
                    _create(connection, schema)
                self._check_schema(connection)
            if not read_only:
                with self._clear_errors(), self.engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except StorageError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database throughout."""
        with self._clear_errors(), self.engine.begin() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is kept whole, or not at all if anything raises."""
        with self._clear_errors(), self.engine.begin() as connection:
            # taking the write lock at once makes this the only place that waits for it
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _configure(self, connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        for pragma in self.schema.pragmas:
            connection.execute(f"PRAGMA {pragma}")
        if self.schema.exclusive:
            # the one lock is taken by the first transaction and kept until the file is closed
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")

    def _check_schema(self, connection: Connection) -> None:
        what, version = self.schema.what, self.schema.version
        found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        missing = self.schema.tables.tables.keys() - _names(connection)
        if found != version or missing:
            lacks = f" and lacks {', '.join(sorted(missing))}" if missing else ""
            raise StorageError(
                f"{self.path}: no {what} of version {version}: the file has version {found}{lacks}. Another "
                "version of mqtt-mdi or another program made it. Use that version, or give another path"
            )

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            # the low byte is the primary result code, the rest says more closely what happened
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, "this is not expected: please report it")
            raise StorageError(f"{self.path}: {error.orig}: {advice}") from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise StorageError(
                f"{self.path}: a value does not fit ({error}): integers must fit 64 bits and text UTF-8"
            ) from error


def _to_read(path: Path) -> dict[str, str]:
    """How to open a file that stays as it is; where we may not write, nobody may be writing.

    Otherwise SQLite wants to have a file beside it for what readers tell a writer (sqlite.org/wal.html).
    """
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    return {"mode": "ro", "uri": "true", **({"immutable": "1"} if alone else {})}


def _names(connection: Connection) -> set[str]:
    return set(connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars())


def _is_new(connection: Connection) -> bool:
    return connection.exec_driver_sql("PRAGMA user_version").scalar_one() == 0 and not _names(connection)


def _create(connection: Connection, schema: Schema) -> None:
    schema.tables.create_all(connection, checkfirst=False)
    for view in schema.views:
        connection.exec_driver_sql(view)
    connection.exec_driver_sql(f"PRAGMA user_version = {schema.version}")
